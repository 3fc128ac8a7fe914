"""The signal model as ONNX: written from a trained network, and run the one way that training and serving share."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InputError

if TYPE_CHECKING:
    from training.signals.module import SignalNet

INPUT, OUTPUT = "features", "forecast_bps"
OPSET = 17


def onnx_bytes(net: "SignalNet", window: int) -> bytes:
    """`net` as ONNX: `features (N, L, F) float32` raw to `forecast_bps (N, H) float32`, N free, L = `window`.

    The same weights give the same bytes.
    """
    import torch

    net.eval()
    example = torch.zeros(1, window, len(net.mean))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that follows this one needs onnxscript, which the platform does without.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (example,),
            buffer,  # type: ignore[arg-type]  # the exporter writes to any file-like object
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
        )
    return buffer.getvalue()


class Forecaster:
    """Runs an exported signal model; one row's forecast does not depend on the other rows of its batch."""

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        """Load `model`, a file or its content; raises InputError where it is no signal model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        name = "signal.onnx" if isinstance(model, bytes) else str(model)
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            shapes = {item.name: item.shape for item in self._session.get_inputs()}
            self.window, self.features = int(shapes[INPUT][1]), int(shapes[INPUT][2])
        except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
            raise InputError(f"{name}: not a readable signal model ({error}); train the signals again") from error

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Forecasts (N, H) bps of raw feature `windows` (N, L, F)."""
        if windows.ndim != 3 or windows.shape[1:] != (self.window, self.features):
            raise InputError(f"windows {windows.shape}: the signal model takes (N, {self.window}, {self.features})")
        found: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(windows)})[0]
        return found

    def forecast_rows(
        self, features: NDArray[np.float32], rows: NDArray[np.int64], batch: int = 2048
    ) -> NDArray[np.float32]:
        """Forecasts (len(rows), H) after each of `rows` of `features` (T, F); every row needs L - 1 rows before it."""
        views = np.lib.stride_tricks.sliding_window_view(features, self.window, axis=0).transpose(0, 2, 1)
        first = self.window - 1
        parts = [self(views[rows[at : at + batch] - first]) for at in range(0, len(rows), batch)]
        return np.concatenate(parts)
