"""What is timed on a GPU, and what others reach there.

Rates of others, operations and rooflines: one H200, torch 2.11, 256 px f8 latents, batch 256 unless
noted; random data, latents already encoded, teacher features given. Of each code base the loop at
its documented flags was timed.
"""

from dataclasses import dataclass

PEAK_TFLOPS = 989.0
"""Dense bf16 of an H200 by its data sheet; the best product measured there is 752."""


@dataclass(kw_only=True, slots=True)
class Row:
    """One line of the table; rates in images/s."""

    title: str
    peers: str
    must: float
    aim: float
    roofline: float | None = None
    """Estimate: measured rates of products, attention and memory, nothing else."""
    gigaflops: float | None = None
    """Products and attention of one image in everything that is timed."""
    batch: int = 256


ROWS: dict[str, Row] = {
    "dit_xl2": Row(
        title="DiT-XL/2 training",
        peers="official 191 (batch 128), fast-DiT = official EQ-VAE 267, LightningDiT 510",
        must=640,
        aim=710,
        roofline=790,
        gigaflops=711.73,
    ),
    "sit_xl2": Row(
        title="SiT-XL/2 training",
        peers="official 192 (batch 128)",
        must=640,
        aim=710,
        roofline=790,
        gigaflops=711.73,
    ),
    "repa_xl2": Row(
        title="SiT-XL/2 + REPA training, teacher features given",
        peers="REPA 348",
        must=620,
        aim=700,
        roofline=780,
        gigaflops=724.2,
    ),
    "sample_xl2": Row(
        title="SiT-XL/2 sampling, SDE of 250 network calls, no guidance",
        peers="DiT DDPM 2.5, SiT SDE 1.3, REPA SDE 2.6",
        must=8.7,
        aim=9.3,
        roofline=9.85,
        gigaflops=250 * 237.243,
    ),
    "maskgit_l": Row(
        title="MaskGIT-L training, 16,384 tokens",
        peers="Halton-MaskGIT 696 (compiled)",
        must=820,
        aim=900,
        roofline=1020,
        gigaflops=521.4,
    ),
    "sit_b2": Row(
        title="SiT-B/2 training",
        peers="official 827",
        must=3000,
        aim=3350,
        roofline=3740,
        gigaflops=138.03,
    ),
    "dit_b2": Row(
        title="DiT-B/2 training",
        peers="official 813, fast-DiT 1,048",
        must=3000,
        aim=3350,
        roofline=3740,
        gigaflops=138.03,
    ),
    "sit_s2": Row(
        title="SiT-S/2 training, 64 tokens",
        peers="",
        must=34_000,
        aim=40_000,
        roofline=45_000,
        gigaflops=8.45,
        batch=512,
    ),
    "encode": Row(
        title="SD-VAE encoding, 256 px",
        peers="232 (batch 1 as released), 488 (batch 32)",
        must=1450,
        aim=1700,
        gigaflops=272.7,
        batch=64,
    ),
    "decode": Row(
        title="SD-VAE decoding, 256 px",
        peers="248 (batch 32)",
        must=690,
        aim=800,
        gigaflops=622.2,
        batch=64,
    ),
    "finetune_full": Row(
        title="SD-VAE fine-tuning, LPIPS-VGG + GAN, full resolution, one forward for both passes",
        peers="33 (two forwards)",
        must=85,
        aim=120,
        batch=10,
    ),
    "finetune_modes": Row(
        title="the same, expectation over the modes of the released recipe",
        peers="≈ 45 (derived, two forwards)",
        must=100,
        aim=140,
        batch=10,
    ),
    "finetune_full_two": Row(
        title="full resolution, a forward of its own for the discriminator",
        peers="33",
        must=85,
        aim=120,
        batch=10,
    ),
    "finetune_modes_two": Row(
        title="expectation, a draw and a forward of its own for the discriminator",
        peers="≈ 45 (derived)",
        must=100,
        aim=140,
        batch=10,
    ),
}
