//! A stream between two processes of this machine, whose calls never wait.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use libc::{iovec, msghdr};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, getsockname, getsockopt,
    shutdown, socket, socketpair, sockopt,
};

use super::rights::{ControlBuffer, MAX_DESCRIPTORS, take_rights};
use crate::memory::{ByteSink, ByteSource};
use crate::{Descriptor, Error, ErrorCode, Result};

/// A connected Unix domain socket of type `SOCK_STREAM`. Clones share it.
#[derive(Debug, Clone)]
pub struct UnixSocket {
    fd: Arc<OwnedFd>,
}

/// The result of a call of [`UnixSocket::receive`].
#[derive(Debug)]
pub struct Received {
    /// The number of bytes; 0 at the end of the stream.
    pub count: usize,
    /// The descriptors that were sent with these bytes, as many as there was room for.
    pub descriptors: Vec<Descriptor>,
    /// Whether the kernel has closed others, for which there was no room.
    pub had_more: bool,
}

impl UnixSocket {
    /// Creates two sockets that are connected to each other.
    ///
    /// # Errors
    /// `ERR_SYSTEM`: too many open files.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| failed(errno, "socketpair", "creating a pair"))?;
        Ok((Self::new(one), Self::new(other)))
    }

    /// Connects to the socket that a process listens on at a path. Returns `None` while the listener's queue is full:
    /// try again then.
    ///
    /// # Errors
    /// `ERR_SYSTEM` with the errno (`ENOENT`, `ECONNREFUSED`: nobody listens; `EACCES`; `ENAMETOOLONG`: over 107
    /// bytes).
    pub fn connect(path: &str) -> Result<Option<Self>> {
        let failed = |errno, syscall| failed(errno, syscall, &format!("connecting to {path}"));
        let address = UnixAddr::new(path).map_err(|errno| failed(errno, "connect"))?;
        let fd = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .map_err(|errno| failed(errno, "socket"))?;
        loop {
            return match connect(fd.as_raw_fd(), &address) {
                Ok(()) => Ok(Some(Self::new(fd))),
                Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(failed(errno, "connect")),
            };
        }
    }

    /// Duplicates the descriptor of a connected socket; the caller still owns the given one.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if it is not a Unix domain socket of type `SOCK_STREAM`; `ERR_SYSTEM`.
    pub fn from_fd(fd: RawFd) -> Result<Self> {
        let copy = Descriptor::duplicate(fd)?;
        let is_stream = getsockopt(&copy, sockopt::SockType) == Ok(SockType::Stream);
        if !is_stream || getsockname::<UnixAddr>(copy.raw_fd()).is_err() {
            let message =
                format!("descriptor {fd} is not a Unix domain socket of type SOCK_STREAM");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        Ok(Self::new(copy.into()))
    }

    fn new(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Returns the number of the descriptor, which the socket still owns.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends bytes, and descriptors with the first of them. Returns the number of bytes that were sent, or `None` if
    /// the peer's queue is full: nothing was sent then.
    ///
    /// The descriptors are sent if any byte was: send the other bytes without them.
    ///
    /// # Errors
    /// `ERR_PEER_CLOSED` if the peer has closed its end (no signal is raised). `ERR_INVALID_ARGUMENT` for no bytes, a
    /// descriptor that is not open, or more than [`MAX_DESCRIPTORS`]. `ERR_SYSTEM` with the errno (`ETOOMANYREFS`: too
    /// many sent descriptors of this user were not received yet).
    pub fn send<'a>(
        &self,
        from: impl Into<ByteSource<'a>>,
        descriptors: &[RawFd],
    ) -> Result<Option<usize>> {
        let from = from.into();
        if from.is_empty() || descriptors.len() > MAX_DESCRIPTORS {
            let text =
                format!("a message has at least 1 byte and at most {MAX_DESCRIPTORS} descriptors");
            return Err(Error::new(ErrorCode::InvalidArgument, text));
        }
        let mut part = iovec {
            iov_base: from.address().cast_mut().cast(),
            iov_len: from.len(),
        };
        let mut message = message(&mut part);
        let mut control = ControlBuffer::new();
        control.attach_rights(&mut message, descriptors);
        // SAFETY: the message, its bytes and its control buffer outlive the call, which only reads them.
        let sent = without_waiting(|flags| unsafe {
            libc::sendmsg(
                self.raw_fd(),
                &raw const message,
                flags | libc::MSG_NOSIGNAL,
            )
        });
        sent.map_err(|errno| match errno {
            Errno::EPIPE | Errno::ECONNRESET => peer_closed(errno, "sendmsg", "sending"),
            Errno::EBADF => {
                let operation = format!("sending descriptors {descriptors:?}");
                Error::os(ErrorCode::InvalidArgument, errno, "sendmsg", operation)
            }
            _ => failed(errno, "sendmsg", "sending"),
        })
    }

    /// Sends messages of these lengths and with these descriptors, until one would have to wait. Returns the number of
    /// bytes that were sent. The last message may be sent in part, with its descriptor.
    ///
    /// # Errors
    /// As [`UnixSocket::send`], if no byte was sent: the error of a later message is that of the next call.
    pub fn send_each<'a>(
        &self,
        from: impl Into<ByteSource<'a>>,
        messages: impl IntoIterator<Item = (usize, Option<RawFd>)>,
    ) -> Result<usize> {
        let mut rest = from.into();
        let mut total = 0_usize;
        for (length, descriptor) in messages {
            let (message, after) = rest.split_at(length.min(rest.len()));
            let sent = match self.send(message, descriptor.as_slice()) {
                Ok(sent) => sent.unwrap_or(0),
                Err(error) if total == 0 => return Err(error),
                Err(_) => 0,
            };
            total = total.saturating_add(sent);
            if sent < length {
                break;
            }
            rest = after;
        }
        Ok(total)
    }

    /// Receives at most as many bytes as `into` has. Returns `None` if nothing has arrived.
    ///
    /// Bytes after those with which descriptors were sent belong to the next call (`unix_stream_read_generic`).
    ///
    /// Up to `room` descriptors are accepted, at most [`MAX_DESCRIPTORS`].
    ///
    /// # Errors
    /// `ERR_PEER_CLOSED` if the peer has ended without reading all that was sent to it. `ERR_SYSTEM` if the process
    /// cannot have as many descriptors (`EMFILE`): those that arrived are closed, and the bytes are lost.
    /// `ERR_INVALID_ARGUMENT` if `into` is empty.
    pub fn receive<'a>(
        &self,
        into: impl Into<ByteSink<'a>>,
        room: usize,
    ) -> Result<Option<Received>> {
        let mut into = into.into();
        if into.is_empty() {
            let message = "a message to receive has at least 1 byte";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let mut part = iovec {
            iov_base: into.address().cast(),
            iov_len: into.len(),
        };
        let mut message = message(&mut part);
        let mut control = ControlBuffer::new();
        control.attach_room(&mut message, room);
        // SAFETY: the message, its bytes and its control buffer outlive the call, which may write all of them.
        let received = without_waiting(|flags| unsafe {
            libc::recvmsg(
                self.raw_fd(),
                &raw mut message,
                flags | libc::MSG_CMSG_CLOEXEC,
            )
        });
        let count = match received {
            Ok(Some(count)) => count,
            Ok(None) => return Ok(None),
            Err(Errno::ECONNRESET) => {
                return Err(peer_closed(Errno::ECONNRESET, "recvmsg", "receiving"));
            }
            Err(errno) => return Err(failed(errno, "recvmsg", "receiving")),
        };
        // SAFETY: the call has just filled the message.
        let descriptors = unsafe { take_rights(&message) };
        let had_more = message.msg_flags & libc::MSG_CTRUNC != 0;
        if had_more && descriptors.len() < room {
            drop(descriptors);
            let operation = "receiving descriptors that do not all fit";
            return Err(failed(Errno::EMFILE, "recvmsg", operation));
        }
        Ok(Some(Received {
            count,
            descriptors,
            had_more,
        }))
    }

    /// Ends the stream to the peer, which receives the bytes before and then the end. The other direction continues.
    ///
    /// # Errors
    /// `ERR_SYSTEM` for an unexpected errno.
    pub fn end(&self) -> Result<()> {
        match shutdown(self.raw_fd(), Shutdown::Write) {
            Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
            Err(errno) => Err(failed(errno, "shutdown", "ending the stream")),
        }
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns a message of one part, without control messages.
fn message(part: &mut iovec) -> msghdr {
    // SAFETY: zero is valid for each field: null pointers, and lengths of 0.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

/// Calls `sendmsg` or `recvmsg` with `MSG_DONTWAIT`. Returns `None` if the call would have to wait.
///
/// Other processes may share the flags of the file, so it is not made non-blocking.
fn without_waiting(
    mut call: impl FnMut(libc::c_int) -> libc::ssize_t,
) -> nix::Result<Option<usize>> {
    loop {
        return match Errno::result(call(libc::MSG_DONTWAIT)) {
            Ok(count) => Ok(Some(usize::try_from(count).unwrap_or(0))),
            Err(Errno::EAGAIN) => Ok(None),
            Err(Errno::EINTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

fn peer_closed(errno: Errno, syscall: &'static str, operation: &str) -> Error {
    let operation = format!("socket: {operation}: the peer has closed it");
    Error::os(ErrorCode::PeerClosed, errno, syscall, operation)
}

fn failed(errno: Errno, syscall: &'static str, operation: &str) -> Error {
    Error::os(
        ErrorCode::System,
        errno,
        syscall,
        format!("socket: {operation}"),
    )
}
