"""An AWS account for tests: moto, which keeps the books, made to act as the real service does where it does not.

The client is the real boto3, by HTTP (`AWS_ENDPOINT_URL`).  Calls are answered one at a time.  Where moto differs
from the service, each difference is one method here, with the page of AWS's documentation that it follows; pages
without further name are of the "Amazon EC2 API Reference".

What is never real: signatures are not checked, and time is short (`boots_in`, `ends_in`, `seen_in`).
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol
from unittest.mock import patch

from moto import settings
from moto.core.base_backend import BackendDict
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import Instance, InstanceState
from moto.ec2.models.security_groups import SecurityGroup
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.test import run_wsgi_app

from tests.cloud.wire import DROPPED, Answer, Call, Environ, Fault

ACCOUNT = "123456789012"
REGION = "eu-west-1"
IMAGE = "ami-0123456789abcdef0"
UBUNTU = "/aws/service/canonical/ubuntu/"
CALLER = f"arn:aws:sts::{ACCOUNT}:user/moto"
SPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
filter_dict_attribute_mapping["client-token"] = "client_token"  # "DescribeInstances": a filter that moto lacks
MOTO = DomainDispatcherApplication(create_backend_app)
STRICT = {
    "ENABLE_AMI_VALIDATION": True,
    "EC2_ENABLE_INSTANCE_TYPE_VALIDATION": True,
    # Hundreds of images that nobody wants take their time to load.
    "ec2_load_default_amis": lambda: False,
}
"""Settings of moto's while a cloud is served."""
USER_DATA_MOST = 16 << 10
"""Bytes before encoding.  EC2 User Guide, "Run commands when you launch an EC2 instance with user data input"."""
PRICES = {"t3.micro": 0.0114, "t3.small": 0.0228, "t3.medium": 0.0456, "c7i.large": 0.1019, "m7i.large": 0.1126}
"""USD an hour, on demand; any other type costs OTHER_PRICE."""
OTHER_PRICE = 0.2
SPOT = {"a": 0.25, "b": 0.5, "c": 0.125}
"""The share of a price that a spot instance costs, by the last letter of its zone."""


class Machines(Protocol):
    """What an instance is, outside of the books."""

    def start(self, user_data: bytes) -> str:
        """A machine that boots and runs this as root; its private address."""

    def runs(self, address: str) -> bool:
        """False once it has switched itself off."""

    def end(self, address: str) -> None:
        """Switch it off, if it still runs."""


class Nothing:
    """Instances that are only in the books."""

    def __init__(self) -> None:
        self._made = 0
        self._off: set[str] = set()

    def start(self, user_data: bytes) -> str:
        self._made += 1
        return f"10.8.{self._made >> 8}.{self._made & 255}"

    def runs(self, address: str) -> bool:
        return address not in self._off

    def end(self, address: str) -> None:
        self._off.add(address)


@dataclass
class Launched:
    """What the books of moto do not have of an instance."""

    instance: Instance
    address: str
    at: float
    groups: tuple[str, ...]
    reservation: str
    user_data: bytes = field(repr=False)
    ended: float | None = None
    """When it began to shut down for good."""


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


class Server(ThreadedWSGIServer):
    """Knows who is connected."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        super().__init__("127.0.0.1", 0, app, Quiet)
        self.clients: dict[Any, Any] = {}
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        self.clients[connection] = address
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.clients.pop(request, None)


class Cloud:
    """A context manager: served on a port of the loopback while it is entered; one at a time."""

    def __init__(self, machines: Machines | None = None) -> None:
        self.machines = machines or Nothing()
        self._lock = threading.RLock()
        self._server: Server | None = None
        self.clear()

    def clear(self) -> None:
        """An account that is new, where nothing goes wrong."""
        self.clock: Callable[[], float] = time.monotonic
        self.boots_in = 0.05
        """Seconds that an instance is pending."""
        self.ends_in = 0.05
        """Seconds that one is shutting down."""
        self.seen_in = 0.0
        """Seconds until other calls know of a new instance or security group."""
        self.capacity: dict[tuple[str, str], int] = {}
        """How many more instances of a (type, zone) there are; any number where nothing is said."""
        self.forbidden: set[str] = set()
        """EC2's actions that the caller has no permission for."""
        self.faults: list[Fault] = []
        self.calls: list[Call] = []
        """All that was asked, in order."""
        self.before: Callable[[int, Call], None] = lambda number, call: None
        """Told of call 1, 2, 3 ... before anything is done; a ConnectionError of its is all that is done."""
        self.after: Callable[[int, Call], None] = lambda number, call: None
        """The same when all is done, before the answer goes; a ConnectionError of its is no answer."""
        self.launched: dict[str, Launched] = {}
        self._grouped: dict[str, float] = {}
        """When each security group was made."""
        self._tokens: dict[tuple[str, str, str], tuple[Mapping[str, str], str]] = {}
        BackendDict.reset()

    # -- the server

    def __enter__(self) -> Cloud:
        with ExitStack() as stack:
            for name, value in STRICT.items():
                stack.enter_context(patch.object(settings, name, value))
            self._restore = stack.pop_all().close
        self._server = Server(self._serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for one in self.launched.values():
                self.machines.end(one.address)
            self.clear()
        self._restore()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to be this account's, and no other's."""
        assert self._server is not None
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.port}",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def drain(self, timeout: float) -> None:
        """Until nobody is connected: whatever callers that are gone have asked for is done, and all that will be.

        Connections are taken in order: when ours is, all that were there before have been.
        """
        assert self._server is not None
        deadline = time.monotonic() + timeout
        with socket.create_connection(("127.0.0.1", self._server.port)) as ours:
            while list(self._server.clients.values()) != [ours.getsockname()]:
                assert time.monotonic() < deadline, "somebody is connected still"
                time.sleep(0.002)  # threads of a server have no event for it

    def _serve(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        call = Call.read(environ)
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
        self.before(number, call)
        with self._lock:
            answer = self._struck(call)
        self.after(number, call)
        if answer is None:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("on purpose")
        start_response(f"{answer.status} _", [("Content-Type", answer.kind)])
        return [answer.body]

    def _struck(self, call: Call) -> Answer | None:
        fault = next((fault for fault in self.faults if fault.strikes(call)), None)
        answer = self._answer(call) if fault is None or fault.effect else None
        if fault is None:
            return answer
        return None if fault.code == DROPPED else Answer.error(call, fault.code, *fault.words)

    # -- what tests look at, and do

    def instances(self, *states: str) -> list[Instance]:
        """Those in these states; all but the terminated when none is named."""
        with self._lock:
            self._pass()
            return [one.instance for one in self.launched.values()
                    if (one.instance.state in states if states else one.instance.state != "terminated")]

    def groups(self) -> list[SecurityGroup]:
        """The security groups that somebody has made."""
        with self._lock:
            return [group for backend in self._backends() for groups in backend.groups.values()
                    for group in groups.values() if group.name != "default"]

    def left(self) -> list[str]:
        """All that is there and costs money, or somebody a question: empty is how an account must be left."""
        found = [f"{one.id} {one.state}" for one in self.instances()]
        found += [f"{group.id} {group.name}" for group in self.groups()]
        with self._lock:
            for backend in self._backends():
                found += [*backend.key_pairs, *backend.launch_templates]
                found += [volume for volume, held in backend.volumes.items() if not held.attachment]
        return found

    def power_off(self, instance: Instance) -> None:
        """As when its own timer does it."""
        with self._lock:
            self.machines.end(self.launched[instance.id].address)

    def tagged(self, change: Callable[[str, str], str]) -> None:
        """Give every tag of every instance and group the value that `change(name, value)` says."""
        with self._lock:
            for backend in self._backends():
                for tags in backend.tags.values():
                    tags.update({name: change(name, value) for name, value in tags.items()})

    def asked(self, action: str) -> list[Call]:
        return [call for call in self.calls if call.action == action]

    # -- how it answers

    def _answer(self, call: Call) -> Answer:
        self._pass()
        if call.service == "pricing":
            return self._prices(call)
        if call.service == "ssm":
            return self._parameter(call)
        if call.service != "ec2":
            return self._ask_moto(call)
        self._backend(call.region)
        if call.action in self.forbidden:
            return Answer.error(call, "UnauthorizedOperation", CALLER, call.action)
        if call.parameters.get("DryRun") == "true":
            # Every action's page: "Checks whether you have the required permissions for the action, without
            # actually making the request".  The status is 412.
            return Answer.error(call, "DryRunOperation")
        answers = {
            "CreateSecurityGroup": self._create_security_group,
            "RunInstances": self._run_instances,
            "TerminateInstances": self._terminate_instances,
            "DeleteSecurityGroup": self._delete_security_group,
            "DescribeSpotPriceHistory": self._spot_prices,
        }
        return answers.get(call.action, self._ask_moto)(call)

    def _ask_moto(self, call: Call, *, all_seen: bool = False) -> Answer:
        with nullcontext() if all_seen else self._unseen():
            body, status, headers = run_wsgi_app(MOTO, call.environ, buffered=True)
        return Answer(int(status.split()[0]), b"".join(body), headers.get("Content-Type", ""))

    def _run_instances(self, call: Call) -> Answer:
        """"RunInstances", and "Ensuring idempotency in Amazon EC2 API requests" of the EC2 Developer Guide.

        A token that was used: the instances of then, as they are now, with nothing launched; an error if a
        parameter differs, or if they have been terminated.  The token holds for one zone where one is named.
        `MaxCount`: "the largest possible number of instances above the specified minimum count"; where that
        minimum cannot be launched, none is.
        """
        asked = {name: str(value) for name, value in call.parameters.items()}
        zone = self._zone(call.region, asked)
        token = (call.region, zone, asked.get("ClientToken", ""))
        if token[2] and token in self._tokens:
            before, reservation = self._tokens[token]
            if before != asked:
                return Answer.error(call, "IdempotentParameterMismatch")
            if all(one.instance.state == "terminated" for one in self._of(reservation)):
                return Answer.error(call, "IdempotentInstanceTerminated")
            return self._reservation(call, reservation)
        if len(base64.b64decode(asked.get("UserData", ""))) > USER_DATA_MOST:
            return Answer.error(call, "InvalidParameterValue", "User data is limited to 16384 bytes")
        kind = asked.get("InstanceType", "m1.small")
        granted = min(int(asked["MaxCount"]), self.capacity.get((kind, zone), 1 << 20))
        if granted < int(asked["MinCount"]):
            return Answer.error(call, "InsufficientInstanceCapacity", kind, zone)
        done = self._ask_moto(call.rewritten("RunInstances", {
            **asked, **self._place(call.region, asked, zone), **self._disks(asked),
            "MinCount": granted, "MaxCount": granted}))
        if done.status != 200:
            return done
        if (kind, zone) in self.capacity:
            self.capacity[kind, zone] -= granted
        [reservation] = re.findall(r"<reservationId>(.*?)</reservationId>", done.body.decode())
        for instance in self._backend(call.region).reservations[reservation].instances:
            self._adopt(instance, reservation, base64.b64decode(asked.get("UserData", "")))
        if token[2]:
            self._tokens[token] = asked, reservation
        return self._reservation(call, reservation)

    def _zone(self, region: str, asked: Mapping[str, str]) -> str:
        subnet = asked.get("SubnetId") or asked.get("NetworkInterface.1.SubnetId")
        if subnet:
            return str(self._backend(region).get_subnet(subnet).availability_zone)
        return asked.get("Placement.AvailabilityZone") or f"{region}a"

    def _place(self, region: str, asked: Mapping[str, str], zone: str) -> dict[str, str]:
        """"RunInstances": "If you don't specify a subnet ID, we choose a default subnet from your default VPC"."""
        if "SubnetId" in asked or "NetworkInterface.1.SubnetId" in asked:
            return {}
        subnets = self._backend(region).get_default_subnets()
        where = "NetworkInterface.1.SubnetId" if "NetworkInterface.1.DeviceIndex" in asked else "SubnetId"
        return {where: subnets[zone].id}

    def _disks(self, asked: Mapping[str, str]) -> dict[str, str]:
        """EC2 User Guide, "Block device mappings": what is not said of a disk is as in the image."""
        sizes = (name.replace(".DeviceName", ".Ebs.VolumeSize") for name in asked
                 if name.startswith("BlockDeviceMapping.") and name.endswith(".DeviceName"))
        return {size: "8" for size in sizes if size not in asked}

    def _adopt(self, instance: Instance, reservation: str, user_data: bytes) -> None:
        """Moto's instance runs at once, and at an address of its own."""
        address = self.machines.start(user_data)
        card = instance.nics[0]
        card.private_ip_address = address
        card.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
        if card.public_ip:
            card.public_ip = address
        groups = {group.id for group in (*instance.security_groups, *card.group_set)}
        self.launched[instance.id] = Launched(instance, address, self.clock(), tuple(groups), reservation, user_data)
        self._enter(instance, "pending")

    def _of(self, reservation: str) -> list[Launched]:
        return [one for one in self.launched.values() if one.reservation == reservation]

    def _reservation(self, call: Call, reservation: str) -> Answer:
        """What RunInstances says of instances, which is DescribeInstances in another wrapping."""
        ids = {f"InstanceId.{i}": one.instance.id for i, one in enumerate(self._of(reservation), 1)}
        told = self._ask_moto(call.rewritten("DescribeInstances", ids), all_seen=True).body.decode()
        match = re.search(r"<reservationSet>\s*<item>(.*)</item>\s*</reservationSet>", told, re.DOTALL)
        assert match is not None, told
        return Answer(200, f'<RunInstancesResponse xmlns="{SPACE}">{match[1]}</RunInstancesResponse>'.encode())

    def _terminate_instances(self, call: Call) -> Answer:
        """"TerminateInstances": all or none, and idempotent; an instance is shutting down for a while.

        Moto's are terminated at once, and "shutting-down" for ever in what this action says.
        """
        known = {i: self.launched[i] for i in call.listed("InstanceId") if i in self.launched}
        before = {i: one.instance.state for i, one in known.items()}
        answer = self._ask_moto(call)
        if answer.status != 200:
            return answer
        items = []
        for i, one in known.items():
            if before[i] in ("shutting-down", "terminated"):
                self._enter(one.instance, before[i])
            else:
                self._end(one)
            states = (("currentState", one.instance.state), ("previousState", before[i]))
            told = "".join(f"<{tag}><code>{STATES[name]}</code><name>{name}</name></{tag}>" for tag, name in states)
            items.append(f"<item><instanceId>{i}</instanceId>{told}</item>")
        body = f"<instancesSet>{''.join(items)}</instancesSet>"
        return Answer(200, f'<TerminateInstancesResponse xmlns="{SPACE}">{body}</TerminateInstancesResponse>'.encode())

    def _create_security_group(self, call: Call) -> Answer:
        """"CreateSecurityGroup": InvalidGroup.Duplicate also for a group that lists do not show yet."""
        answer = self._ask_moto(call, all_seen=True)
        self._grouped.update(dict.fromkeys(re.findall(r"<groupId>(.*?)</groupId>", answer.body.decode()), self.clock()))
        return answer

    def _delete_security_group(self, call: Call) -> Answer:
        """"DeleteSecurityGroup": DependencyViolation while an instance has it, or another group's rule names it.

        An instance has it until it is terminated, although one that is shutting down is no longer told to have it.
        """
        backend = self._backend(call.region)
        group = backend.get_security_group_by_name_or_id(
            call.parameters.get("GroupId") or call.parameters.get("GroupName"))
        if group is not None:
            users = [one for one in self.launched.values()
                     if group.id in one.groups and one.instance.state != "terminated"]
            named = [other for groups in backend.groups.values() for other in groups.values()
                     if other.id != group.id and group.id in str([vars(r) for r in other.ingress_rules])]
            if users or named:
                return Answer.error(call, "DependencyViolation", group.id)
        return self._ask_moto(call)

    def _prices(self, call: Call) -> Answer:
        """AWS Price List Service, "GetProducts": a list of JSON texts.  Moto has no such service."""
        asked = {f["Field"]: f["Value"] for f in call.parameters.get("Filters", ())}
        kind = asked.get("instanceType", "")
        price = f"{PRICES.get(kind, OTHER_PRICE):.10f}"
        product = {
            "product": {"productFamily": "Compute Instance", "attributes": asked},
            "terms": {"OnDemand": {"SKU.TERM": {"priceDimensions": {
                "SKU.TERM.DIM": {"unit": "Hrs", "pricePerUnit": {"USD": price}}}}}},
        }
        return Answer.of_json({"FormatVersion": "aws_v1", "PriceList": [json.dumps(product)]})

    def _spot_prices(self, call: Call) -> Answer:
        """"DescribeSpotPriceHistory": from now on, the price of now for each zone; moto's is the same for all."""
        items = "".join(
            f"<item><instanceType>{kind}</instanceType><productDescription>Linux/UNIX</productDescription>"
            f"<spotPrice>{PRICES.get(kind, OTHER_PRICE) * share:.6f}</spotPrice>"
            f"<timestamp>2026-01-01T00:00:00.000Z</timestamp>"
            f"<availabilityZone>{call.region}{letter}</availabilityZone></item>"
            for kind in call.listed("InstanceType") for letter, share in SPOT.items())
        body = f"<spotPriceHistorySet>{items}</spotPriceHistorySet>"
        return Answer(200, f'<DescribeSpotPriceHistoryResponse xmlns="{SPACE}">{body}'
                           "</DescribeSpotPriceHistoryResponse>".encode())

    def _parameter(self, call: Call) -> Answer:
        """AWS Systems Manager User Guide, "Calling AMI public parameters"; moto has Amazon's own only."""
        names = call.parameters.get("Names") or [call.parameters.get("Name", "")]
        if call.action not in ("GetParameter", "GetParameters") or not names[0].startswith(UBUNTU):
            return self._ask_moto(call)
        found = [{"Name": name, "Type": "String", "Value": IMAGE, "Version": 1} for name in names if "/24.04/" in name]
        if call.action == "GetParameters":
            return Answer.of_json({"Parameters": found, "InvalidParameters": [n for n in names if "/24.04/" not in n]})
        return Answer.of_json({"Parameter": found[0]}) if found else Answer.error(call, "ParameterNotFound")

    # -- time

    def _pass(self) -> None:
        """What has become of every instance by now."""
        for one in self.launched.values():
            instance = one.instance
            if instance.state in ("pending", "running") and not self.machines.runs(one.address):
                self._shut_down(one)
            if instance.state == "pending" and self.clock() >= one.at + self.boots_in:
                self._enter(instance, "running")
            elif instance.state == "shutting-down" and self.clock() >= (one.ended or 0.0) + self.ends_in:
                self._enter(instance, "terminated")

    def _shut_down(self, one: Launched) -> None:
        """EC2 User Guide, "Change instance initiated shutdown behavior": stop, unless terminate was asked for."""
        if one.instance.instance_initiated_shutdown_behavior == "terminate":
            one.instance.terminate()
            self._end(one)
        else:
            one.instance.stop()

    def _end(self, one: Launched) -> None:
        self.machines.end(one.address)
        one.ended = self.clock()
        one.instance.security_groups = []
        self._enter(one.instance, "shutting-down")

    @staticmethod
    def _enter(instance: Instance, state: str) -> None:
        instance._state = InstanceState(state, STATES[state])

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        """EC2 Developer Guide, "Eventual consistency in the Amazon EC2 API".

        For a while after it was made, an instance is in no list, and InvalidInstanceID.NotFound by its id; a group
        as well, InvalidGroup.NotFound.
        """
        before = self.clock() - self.seen_in
        young = {one.reservation for one in self.launched.values() if one.at > before}
        young |= {group for group, made in self._grouped.items() if made > before}
        hidden = [(books, id, books.pop(id)) for backend in self._backends()
                  for books in (backend.reservations, *backend.groups.values()) for id in young & books.keys()]
        try:
            yield
        finally:
            for books, id, entry in hidden:
                books[id] = entry

    # -- moto's books

    def _backends(self) -> list[Any]:
        return list(ec2_backends[ACCOUNT].values())

    def _backend(self, region: str) -> Any:
        backend = ec2_backends[ACCOUNT][region]
        if IMAGE not in backend.amis:
            backend.amis[IMAGE] = Ami(
                backend, IMAGE, name="ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261101",
                owner_id="099720109477", public=True, architecture="x86_64", virtualization_type="hvm",
                root_device_type="ebs", region_name=region)
        return backend
