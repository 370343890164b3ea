"""Writing ROS 2 recordings that appear only when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from mast3r_ros.errors import BagError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.io import codec

Array = NDArray[np.float64]

_STORAGE = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_SUFFIX = {".mcap": "mcap", ".db3": "sqlite3"}
#: Metadata version 8 is the newest whose QoS text Humble can read too.
_VERSION: Literal[8] = 8
_FOREVER = QosTime(9223372036, 854775807)


class BagWriter:
    """Writes a ROS 2 recording (readable by Humble, Jazzy and Kilted). Use it in a ``with`` statement.

    Everything goes to a hidden folder beside the target, which is renamed when the recording is closed: what was
    interrupted never looks finished, and never replaces what was there. An exception in the ``with`` block discards
    the recording. Stamps are nanoseconds; they are both the header's and the time of recording.

    Args:
        path: a folder to make, or a single file if it ends in .mcap or .db3.
        storage: "mcap" or "sqlite3"; the path's ending wins.
        overwrite: replace an existing recording, once the new one is complete.

    Raises:
        BagError: if the target exists, or cannot be written (all methods: disk full, read-only, gone).
    """

    def __init__(self, path: Path | str, storage: str = "mcap", overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._single_file = self.path.suffix in _SUFFIX
        storage = _SUFFIX.get(self.path.suffix, storage)
        if storage not in _STORAGE:
            raise BagError(f"unknown bag storage '{storage}': use {' or '.join(_STORAGE)}")
        self._refuse_existing()
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Any] = {}
        with _written(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._room = Path(mkdtemp(prefix=f".{self.path.name}.writing-", dir=self.path.parent))
            self._writer = Writer(
                self._room / (self.path.stem if self._single_file else self.path.name),
                version=_VERSION,
                storage_plugin=_STORAGE[storage],
            )
            # Never empty: some readers do not accept an empty map here.
            self._writer.set_custom_data("written_by", "mast3r_ros")
            self._writer.open()
        self._open = True

    def message(self, topic: str, msgtype: str, stamp_ns: int, **fields: Any) -> None:
        """Write one message of any standard type from its fields (made with :meth:`make`)."""
        self.serialized(topic, msgtype, stamp_ns, self._types.serialize_cdr(self.make(msgtype, **fields), msgtype))

    def serialized(self, topic: str, msgtype: str, stamp_ns: int, data: bytes | memoryview) -> None:
        """Write one CDR message as it is, for instance from :meth:`BagReader.serialized`."""
        if not self._open:
            raise BagError(f"{self.path} is closed: nothing more can be written to it")
        with _written(self.path):
            if topic not in self._connections:
                qos = _qos(transient_local=topic.endswith("tf_static"))
                self._connections[topic] = self._writer.add_connection(
                    topic, msgtype, typestore=self._types, offered_qos_profiles=[qos]
                )
            self._writer.write(self._connections[topic], stamp_ns, data)

    def make(self, msgtype: str, **fields: Any) -> Any:
        """A message object of a standard ROS 2 type, such as "std_msgs/msg/Header"."""
        return self._types.types[msgtype](**fields)

    # One method for each kind of data

    def image(self, topic: str, rgb: NDArray[np.uint8], stamp_ns: int, frame_id: str, encoding: str = "rgb8") -> None:
        """(H, W, 3) RGB as sensor_msgs/Image."""
        data, step = codec.encode_image(rgb, encoding)
        self._image(topic, data, step, rgb.shape, encoding, stamp_ns, frame_id)

    def compressed_image(
        self,
        topic: str,
        rgb: NDArray[np.uint8],
        stamp_ns: int,
        frame_id: str,
        format: str = "jpeg",
        quality: int = 90,
    ) -> None:
        """(H, W, 3) RGB as sensor_msgs/CompressedImage (jpeg or png); the topic should end in /compressed."""
        data = codec.encode_compressed_image(rgb, format, quality)
        self.compressed(topic, data, f"rgb8; {format} compressed bgr8", stamp_ns, frame_id)

    def compressed(self, topic: str, data: bytes, format: str, stamp_ns: int, frame_id: str) -> None:
        """Bytes that are compressed already, such as a camera's JPEG, as sensor_msgs/CompressedImage."""
        self.message(
            topic,
            "sensor_msgs/msg/CompressedImage",
            stamp_ns,
            header=self._header(stamp_ns, frame_id),
            format=format,
            data=np.frombuffer(data, dtype=np.uint8),
        )

    def depth(
        self,
        topic: str,
        metres: NDArray[np.floating],
        stamp_ns: int,
        frame_id: str,
        encoding: str = "16UC1",
        compressed: bool = False,
    ) -> None:
        """(H, W) metres as sensor_msgs/Image, or compressed for a topic that ends in /compressedDepth."""
        if compressed:
            data = codec.encode_compressed_depth(metres, encoding)
            self.compressed(topic, data, f"{encoding}; compressedDepth png", stamp_ns, frame_id)
            return
        data, step = codec.encode_depth(metres, encoding)
        self._image(topic, data, step, metres.shape, encoding, stamp_ns, frame_id)

    def camera_info(self, topic: str, camera: Camera, stamp_ns: int, frame_id: str) -> None:
        """Calibration as sensor_msgs/CameraInfo."""
        self.message(
            topic,
            "sensor_msgs/msg/CameraInfo",
            stamp_ns,
            header=self._header(stamp_ns, frame_id),
            height=camera.height,
            width=camera.width,
            distortion_model=camera.model if camera.is_distorted else "plumb_bob",
            d=camera.D if camera.is_distorted else np.zeros(5),
            k=camera.K.reshape(-1),
            r=np.eye(3).reshape(-1),
            p=np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=self.make(
                "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
            ),
        )

    def transform(self, parent: str, child: str, parent_T_child: Array, stamp_ns: int, static: bool = False) -> None:
        """One transform (4, 4) on /tf, or on /tf_static."""
        transform = self.make(
            "geometry_msgs/msg/Transform",
            translation=self._xyz("geometry_msgs/msg/Vector3", parent_T_child),
            rotation=self._rotation(parent_T_child),
        )
        stamped = self.make(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(stamp_ns, parent),
            child_frame_id=child,
            transform=transform,
        )
        topic = "/tf_static" if static else "/tf"
        self.message(topic, "tf2_msgs/msg/TFMessage", stamp_ns, transforms=[stamped])

    def pose(self, topic: str, map_T_body: Array, covariance: Array, stamp_ns: int, frame_id: str) -> None:
        """Pose (4, 4) and covariance (6, 6) as geometry_msgs/PoseWithCovarianceStamped."""
        pose = self._pose_with_covariance(map_T_body, covariance)
        header = self._header(stamp_ns, frame_id)
        self.message(topic, "geometry_msgs/msg/PoseWithCovarianceStamped", stamp_ns, header=header, pose=pose)

    def status(
        self, topic: str, name: str, ok: bool, message: str, values: Mapping[str, str], stamp_ns: int, frame_id: str
    ) -> None:
        """Whether something went well, and its figures, as diagnostic_msgs/DiagnosticArray (levels OK and WARN)."""
        pairs = [self.make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in values.items()]
        status = self.make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=0 if ok else 1,
            name=name,
            message=message,
            hardware_id="",
            values=pairs,
        )
        header = self._header(stamp_ns, frame_id)
        self.message(topic, "diagnostic_msgs/msg/DiagnosticArray", stamp_ns, header=header, status=[status])

    def odometry(
        self,
        topic: str,
        odom_T_base: Array,
        stamp_ns: int,
        frame_id: str = "odom",
        child_frame_id: str = "base_link",
        covariance: Array | None = None,
    ) -> None:
        """Pose (4, 4) as nav_msgs/Odometry; its velocity is left zero."""
        zero = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self.make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
        self.message(
            topic,
            "nav_msgs/msg/Odometry",
            stamp_ns,
            header=self._header(stamp_ns, frame_id),
            child_frame_id=child_frame_id,
            pose=self._pose_with_covariance(odom_T_base, np.zeros((6, 6)) if covariance is None else covariance),
            twist=self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )

    def trajectory(self, topic: str, poses: Iterable[tuple[int, Array]], stamp_ns: int, frame_id: str) -> None:
        """Stamped poses (4, 4) as nav_msgs/Path."""
        stamped = [
            self.make("geometry_msgs/msg/PoseStamped", header=self._header(stamp, frame_id), pose=self._pose(pose))
            for stamp, pose in poses
        ]
        self.message(topic, "nav_msgs/msg/Path", stamp_ns, header=self._header(stamp_ns, frame_id), poses=stamped)

    def points(
        self,
        topic: str,
        xyz: NDArray[np.floating],
        stamp_ns: int,
        frame_id: str,
        rgb: NDArray[np.uint8] | None = None,
        confidence: NDArray[np.floating] | None = None,
    ) -> None:
        """Points (N, 3) in metres as sensor_msgs/PointCloud2."""
        fields, step, data = codec.pack_points(xyz, rgb, confidence)
        make_field = self._types.types["sensor_msgs/msg/PointField"]
        self.message(
            topic,
            "sensor_msgs/msg/PointCloud2",
            stamp_ns,
            header=self._header(stamp_ns, frame_id),
            height=1,
            width=len(xyz),
            fields=[make_field(name, offset, datatype, count) for name, offset, datatype, count in fields],
            is_bigendian=False,
            point_step=step,
            row_step=len(data),
            data=data,
            is_dense=bool(np.isfinite(xyz).all()),
        )

    # The end

    def close(self) -> None:
        """Finish the recording and put it in its place; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        try:
            with _written(self.path):
                self._writer.close()
                made = self._writer.path
                for file in made.iterdir():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
                if self._single_file:
                    made = next(made.glob("*" + self.path.suffix))
                self._refuse_existing()
                _replace(made, self.path, aside=self._room / "replaced")
        finally:
            shutil.rmtree(self._room, ignore_errors=True)

    def discard(self) -> None:
        """Throw the recording away; what stood at the target stays."""
        if self._open:
            self._open = False
            _release(self._writer)
            shutil.rmtree(self._room, ignore_errors=True)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _refuse_existing(self) -> None:
        if self.path.exists() and not self._overwrite:
            raise BagError(f"{self.path} exists already: choose another name, or ask to overwrite it")

    def _image(
        self, topic: str, data: bytes, step: int, shape: tuple[int, ...], encoding: str, stamp_ns: int, frame_id: str
    ) -> None:
        self.message(
            topic,
            "sensor_msgs/msg/Image",
            stamp_ns,
            header=self._header(stamp_ns, frame_id),
            height=shape[0],
            width=shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=step,
            data=np.frombuffer(data, dtype=np.uint8),
        )

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        stamp = self.make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _xyz(self, msgtype: str, pose: Array) -> Any:
        x, y, z = map(float, pose[:3, 3])
        return self.make(msgtype, x=x, y=y, z=z)

    def _rotation(self, pose: Array) -> Any:
        x, y, z, w = map(float, se3.quaternion(pose))
        return self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def _pose(self, pose: Array) -> Any:
        position = self._xyz("geometry_msgs/msg/Point", pose)
        return self.make("geometry_msgs/msg/Pose", position=position, orientation=self._rotation(pose))

    def _pose_with_covariance(self, pose: Array, covariance: Array) -> Any:
        flat = np.asarray(covariance, dtype=np.float64).reshape(36)
        return self.make("geometry_msgs/msg/PoseWithCovariance", pose=self._pose(pose), covariance=flat)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turns the ways in which writing fails into a BagError that names the recording."""
    try:
        yield
    except (OSError, sqlite3.Error, WriterError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) or "full" in str(error)
        why = "the disk is full" if full else str(error)
        raise BagError(f"{path} cannot be written: {why}; what stood there before is kept") from error


def _replace(made: Path, target: Path, aside: Path) -> None:
    """Rename ``made`` to ``target``; a folder cannot be replaced in one step, so the old one is renamed first."""
    if not target.is_dir() or target.is_symlink():
        os.replace(made, target)
        return
    os.rename(target, aside)
    try:
        os.rename(made, target)
    except OSError:
        os.rename(aside, target)
        raise


def _release(writer: Writer) -> None:
    """Close a rosbags writer's file without finishing it."""
    storage = writer.storage
    handle = getattr(storage, "bio", None) or getattr(storage, "conn", None)
    if handle is not None:
        with suppress(OSError, sqlite3.Error):  # a full disk fails the last flush too; the file is thrown away anyway
            handle.close()


def _qos(transient_local: bool) -> Qos:
    """Reliable, and kept for late joiners where asked."""
    return Qos(
        QosHistory.KEEP_LAST,
        10 if not transient_local else 100,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )
