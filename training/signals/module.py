"""The signal model: a small causal convolutional network over the last L seconds, and how Lightning trains it.

Dilated causal convolutions (van den Oord et al. 2016, "WaveNet"; Bai, Kolter and Koltun 2018 on sequence models) train
on whole stretches of a day at once, so that neighbouring forecasts share their work. Measured on one core with 24
channels, 16 features and 32 rows: a training step costs 2.5 us a forecast, against 66 us for a GRU of the same width,
which must see each window by itself; in onnxruntime a batch costs 12 us a forecast against 21 us. So every second of
the training days is used where a GRU would have to sample.

Imports torch and Lightning: import this module inside the function that needs it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.signals.config import SignalConfig

MAX_GAIN = 1.0


class SignalNet(nn.Module):
    """Raw features to forecasts in bps; standardiser, target scale and calibration are inside.

    `blocks` residual convolutions of kernel 2 and dilation 1, 2, 4, ... see exactly `2**blocks` rows; a linear path
    sees the last row alone. No padding: (N, T, F) gives forecasts for the last T - L + 1 rows. The output layer starts
    at zero, so that training starts from the forecast "no move".
    """

    mean: Tensor
    scale: Tensor
    target_scale: Tensor
    gain: Tensor

    def __init__(
        self,
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        target_scale: NDArray[np.float64],
        config: SignalConfig,
    ) -> None:
        """Build with the standardiser `mean`, `scale` (F,) and the moves' `target_scale` (H,) in bps."""
        super().__init__()
        features, horizons = len(mean), len(target_scale)
        for name, value in (("mean", mean), ("scale", scale), ("target_scale", target_scale)):
            self.register_buffer(name, torch.tensor(np.asarray(value), dtype=torch.float32))
        self.register_buffer("gain", torch.ones(horizons))
        self.clip_sigma = config.clip_sigma
        self.enter = nn.Conv1d(features, config.hidden, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.hidden, config.hidden, 2, dilation=1 << block) for block in range(config.blocks)
        )
        self.dropout = nn.Dropout1d(config.dropout)
        self.head = nn.Conv1d(config.hidden, horizons, 1)
        self.linear = nn.Conv1d(features, horizons, 1)
        with torch.no_grad():
            for parameter in (*self.head.parameters(), *self.linear.parameters()):
                parameter.zero_()

    def standardised(self, features: Tensor) -> Tensor:
        """Forecasts (N, T - L + 1, H) in units of the target scale, before the calibrating gain."""
        x = ((features - self.mean) / self.scale).clamp(-self.clip_sigma, self.clip_sigma).transpose(1, 2)
        hidden = functional.relu(self.enter(x))
        for block, convolution in enumerate(self.convolutions):
            ahead = self.dropout(functional.relu(convolution(hidden)))
            hidden = ahead + hidden[:, :, 1 << block :]
        found: Tensor = self.head(hidden) + self.linear(x[:, :, (1 << len(self.convolutions)) - 1 :])
        return found.transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Raw `features` (N, L, F) float32 to the forecast after the last row, (N, H) float32 bps."""
        return self.standardised(features)[:, 0, :] * (self.target_scale * self.gain)


class SignalModule(pl.LightningModule):
    """Trains a `SignalNet` on batches `(features (B, L-1+C, F), targets (B, C, H), ratios (B, C, H))`.

    Targets are moves over the instrument's own typical move, NaN where a row does not count; ratios turn a
    forecast in units of the shared target scale into the instrument's.
    """

    def __init__(self, net: SignalNet, config: SignalConfig, steps: int) -> None:
        """Train `net` for at most `steps` optimizer steps."""
        super().__init__()
        self.net, self.config, self.steps = net, config, steps

    def loss(self, batch: Sequence[Tensor]) -> tuple[Tensor, int]:
        """Mean Huber loss over the rows that count, and how many values that are."""
        features, targets, ratios = batch
        known = torch.isfinite(targets)
        error = self.net.standardised(features) * ratios - torch.nan_to_num(targets)
        each = functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.config.huber_delta)
        count = int(known.sum())
        return (each * known).sum() / max(count, 1), count

    def training_step(self, batch: Sequence[Tensor], batch_index: int) -> Tensor:
        """One optimizer step's loss."""
        loss, count = self.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=max(count, 1))
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_index: int) -> None:
        """Log the loss on the validation tail."""
        loss, count = self.loss(batch)
        self.log("val_loss", loss, on_step=False, on_epoch=True, batch_size=max(count, 1))

    def configure_optimizers(self) -> Any:
        """AdamW, its rate falling along a cosine to a twentieth."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )

        def factor(step: int) -> float:
            return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(step / max(self.steps, 1), 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def calibrate(net: SignalNet, batches: Iterable[Sequence[Tensor]], chunks_per_block: int) -> NDArray[np.float64]:
    """Set the gain of each horizon from the validation tail, whose `batches` come in time order; returns it (H,).

    The least-squares gain b, held within 0 to 1, times the positive-part James-Stein factor 1 - 1/t^2 (James and Stein
    1961), t being b over its standard error across blocks of `chunks_per_block` chunks, for labels of neighbouring
    chunks overlap. So a forecast that the tail does not confirm is drawn to zero, which costs nothing out of sample.
    """
    net.eval()
    cross, square = [], []  # of each chunk: sum of forecast x move, sum of forecast^2
    for features, targets, ratios in batches:
        forecast = (net.standardised(features) * ratios).double() * torch.isfinite(targets)
        cross.append((forecast * torch.nan_to_num(targets).double()).sum(dim=1).numpy())
        square.append((forecast * forecast).sum(dim=1).numpy())
    gain = shrunk_gain(np.concatenate(cross), np.concatenate(square), chunks_per_block)
    net.gain.copy_(torch.from_numpy(gain).float())
    return gain


def shrunk_gain(cross: NDArray[np.float64], square: NDArray[np.float64], chunks_per_block: int) -> NDArray[np.float64]:
    """Gain (H,) from the sums `cross` and `square` (chunks, H); see `calibrate`. With fewer than 3 blocks it is 0."""
    starts = np.arange(0, len(cross), chunks_per_block)
    if len(starts) < 3:
        return np.zeros(cross.shape[1])
    block_cross, block_square = np.add.reduceat(cross, starts, axis=0), np.add.reduceat(square, starts, axis=0)
    total = block_square.sum(axis=0)
    slope = block_cross.sum(axis=0) / np.where(total > 0.0, total, 1.0)
    spread = ((block_cross - slope * block_square) ** 2).sum(axis=0) * len(starts) / (len(starts) - 1)
    factor = np.maximum(1.0 - spread / np.maximum((slope * total) ** 2, 1e-300), 0.0)
    gain: NDArray[np.float64] = np.where(total > 0.0, np.clip(slope, 0.0, MAX_GAIN) * factor, 0.0)
    return gain
