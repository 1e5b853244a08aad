"""What every decoder asks of a prediction."""

import numpy as np


def check_probabilities(volume: np.ndarray, channels: int) -> None:
    """Checks that `volume` is `[c z y x]`, in [0, 1], with at least so many channels.

    Raises:
      ValueError: if it is not, or holds a NaN.
    """
    if volume.ndim != 4 or volume.shape[0] < channels or 0 in volume.shape:
        raise ValueError(
            f"the prediction has shape {volume.shape}; expected [c z y x] with at least "
            f"{channels} channels and no empty axis"
        )
    low, high = volume.min(), volume.max()
    if not (low >= 0 and high <= 1):  # Also true of a NaN.
        raise ValueError(
            f"the prediction ranges from {low} to {high}; give probabilities in [0, 1]: "
            f"the sigmoid of logits, or uint8 divided by 255"
        )
