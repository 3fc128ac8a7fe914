"""Policy inference: stateless, over HTTP or in the caller's process; only bundles that the promoter signed."""
