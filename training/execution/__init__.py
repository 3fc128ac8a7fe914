"""Gymnasium environments, baselines, RLlib agents and their ONNX export."""
