"""The sections of a scenario that map the model to the machine it is emulated on."""

from pydantic import Field

from experiments.scenario.section import Section
from workers.options import ComputeMode, Device


class ScaleSection(Section):
    time_dilation: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e6,
        description="wall seconds that a model second takes; null: so that the work takes about wall_s",
    )
    bytes_scale: float | None = Field(
        default=None,
        ge=1e-9,
        le=1000,
        description="bytes on the wire for a byte of the model; null: so that a NIC runs at link_mbps",
    )
    wall_s: float = Field(
        default=60.0,
        ge=0.1,
        le=86400,
        description="wall seconds that the work of one policy should take if time_dilation is null",
    )
    most_wall_s: float | None = Field(
        default=None,
        ge=0.1,
        le=86400,
        description="wall seconds that a slow machine may make of wall_s; null: four times wall_s",
    )
    link_mbps: float | None = Field(
        default=None,
        ge=0.1,
        le=10000,
        description="Mb/s of a NIC on the machine if bytes_scale is null; null: 15, or less where it is slow",
    )
    rehearse: bool = Field(
        default=True,
        description="measure this machine before an emulated run, to choose what is null here",
    )


class WorkersSection(Section):
    device: Device = Field(
        default=Device.AUTO, description="where tensors are; auto: on a CUDA device if there is one"
    )
    compute: ComputeMode = Field(
        default=ComputeMode.TIMED,
        description="wait for the modelled time, multiply real matrices, run kernels with the sizes"
        " of the model, or compute a small model",
    )
    lanes_s1: int = Field(default=2, ge=1, le=64, description="S1 lanes between two ranks")
    lanes_s3: int = Field(default=4, ge=1, le=64, description="S3 lanes between two ranks")
    chunk_kib: int = Field(
        default=256, ge=1, le=1_048_576, description="a transfer is sent in pieces of this many KiB"
    )
    verify_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the transfers whose payload is checked on arrival (micro workloads: all)",
    )
