"""Machines of Amazon EC2: made by the run, gone with it, and priced before they are made."""

from fanout.fleets.aws.fleet import KEYS, AwsFleet

__all__ = ["KEYS", "AwsFleet"]
