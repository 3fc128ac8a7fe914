"""The paper venue: a market of `training.market` behind a FIX acceptor for orders and a websocket feed."""
