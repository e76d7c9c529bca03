"""The fabrics by name, for what holds for one of them only (`testbed.fabrics` makes them)."""

import enum


class FabricName(enum.StrEnum):
    MININET = "mininet"
    SIM = "sim"
