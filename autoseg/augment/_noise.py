"""Normal noise that is a function of a seed a sample."""

import torch


def draw_noise(rows: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Return standard normal noise like ``rows`` (N, ...), each row from its own seed; ``seeds`` (N,) are on the CPU.

    The loop is over the few rows that need noise: torch's generators fill one stream at a time, and noise that did not
    depend on a sample alone would change with the batch around it. Devices of different kinds draw different noise.
    """
    noise = torch.empty_like(rows, memory_format=torch.contiguous_format)
    generator = torch.Generator(rows.device)
    for row, seed in zip(noise, seeds.tolist()):
        row.normal_(generator=generator.manual_seed(seed))
    return noise


def draw_seeds(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Return a seed for each sample of a batch, (B,)."""
    return torch.randint(2**62, (batch,), generator=generator)
