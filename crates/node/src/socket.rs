//! Unix domain sockets, and descriptors that this process owns.

use napi::Env;
use napi::bindgen_prelude::BigUint64ArraySlice;
use napi_derive::napi;
use peerdma_core::socket::UnixSocket;
use peerdma_core::{Descriptor, Result};

use crate::bytes::Bytes;
use crate::error::{closed, or_throw};
use crate::numbers::{Fd, Index};

/// An open descriptor of any file.
#[napi]
pub struct NativeDescriptor {
    descriptor: Option<Descriptor>,
}

#[napi]
impl NativeDescriptor {
    /// Duplicates a descriptor; the caller still owns the original.
    #[napi(factory)]
    pub fn duplicate(env: &Env, fd: Fd) -> napi::Result<Self> {
        or_throw(env, || Descriptor::duplicate(fd.0).map(Self::from))
    }

    /// The number of the descriptor.
    #[napi(getter)]
    pub fn fd(&self, env: &Env) -> napi::Result<i32> {
        or_throw(env, || {
            let descriptor = self.descriptor.as_ref();
            Ok(descriptor.ok_or_else(|| closed("descriptor"))?.raw_fd())
        })
    }

    /// Closes it.
    #[napi]
    pub fn close(&mut self) {
        self.descriptor = None;
    }
}

impl From<Descriptor> for NativeDescriptor {
    fn from(descriptor: Descriptor) -> Self {
        Self {
            descriptor: Some(descriptor),
        }
    }
}

/// Bytes that were received.
#[napi(object, object_from_js = false)]
pub struct NativeReceived {
    /// The number of bytes; 0 at the end of the stream.
    pub count: Index,
    /// The descriptors that were sent with these bytes, as many as there was room for.
    pub descriptors: Vec<NativeDescriptor>,
    /// Whether the kernel has closed others, for which there was no room.
    pub had_more: bool,
}

/// A connected Unix domain socket of type `SOCK_STREAM`.
#[napi]
pub struct NativeUnixSocket {
    socket: Option<UnixSocket>,
}

impl NativeUnixSocket {
    pub(crate) fn socket(&self) -> Result<&UnixSocket> {
        self.socket.as_ref().ok_or_else(|| closed("socket"))
    }
}

impl From<UnixSocket> for NativeUnixSocket {
    fn from(socket: UnixSocket) -> Self {
        Self {
            socket: Some(socket),
        }
    }
}

#[napi]
impl NativeUnixSocket {
    /// Creates two sockets that are connected to each other.
    #[napi(ts_return_type = "[NativeUnixSocket, NativeUnixSocket]")]
    pub fn pair(env: &Env) -> napi::Result<Vec<Self>> {
        or_throw(env, || {
            let (one, other) = UnixSocket::pair()?;
            Ok(vec![one.into(), other.into()])
        })
    }

    /// Connects to the socket at a path. Returns `null` while the listener's queue is full.
    #[napi(ts_return_type = "NativeUnixSocket | null")]
    pub fn connect(env: &Env, path: String) -> napi::Result<Option<Self>> {
        or_throw(env, || Ok(UnixSocket::connect(&path)?.map(Self::from)))
    }

    /// Duplicates the descriptor of a connected socket; the caller still owns the original.
    #[napi(factory)]
    pub fn from_fd(env: &Env, fd: Fd) -> napi::Result<Self> {
        or_throw(env, || UnixSocket::from_fd(fd.0).map(Self::from))
    }

    /// The number of the descriptor.
    #[napi(getter)]
    pub fn fd(&self, env: &Env) -> napi::Result<i32> {
        or_throw(env, || Ok(self.socket()?.raw_fd()))
    }

    /// Sends bytes, and descriptors with the first of them. Returns the number of bytes sent; 0 while the peer's
    /// queue is full.
    #[napi]
    pub fn send(&self, env: &Env, from: Bytes, descriptors: Vec<Fd>) -> napi::Result<Index> {
        or_throw(env, || {
            let numbers: Vec<i32> = descriptors.iter().map(|fd| fd.0).collect();
            let sent = self.socket()?.send(from.source(), &numbers)?;
            Ok(Index(sent.unwrap_or(0).try_into().unwrap_or(u64::MAX)))
        })
    }

    /// Sends messages until the peer's queue is full. Each has two words: its length in bytes, and its descriptor or
    /// 2^64 - 1 for none. Returns the number of bytes sent.
    #[napi]
    pub fn send_each(
        &self,
        env: &Env,
        from: Bytes,
        messages: BigUint64ArraySlice<'_>,
    ) -> napi::Result<Index> {
        or_throw(env, || {
            let (words, _) = messages.as_chunks::<2>();
            let each = words.iter().map(|&[length, descriptor]| {
                (
                    usize::try_from(length).unwrap_or(usize::MAX),
                    i32::try_from(descriptor).ok(),
                )
            });
            let sent = self.socket()?.send_each(from.source(), each)?;
            Ok(Index(sent.try_into().unwrap_or(u64::MAX)))
        })
    }

    /// Fills `into` with at most as many bytes as it has, and accepts up to `room` descriptors.
    ///
    /// Returns `null` if nothing has arrived.
    #[napi]
    pub fn receive(
        &self,
        env: &Env,
        mut into: Bytes,
        room: Index,
    ) -> napi::Result<Option<NativeReceived>> {
        or_throw(env, || {
            let room = usize::try_from(room.0).unwrap_or(usize::MAX);
            let received = self.socket()?.receive(into.sink(), room)?;
            Ok(received.map(|received| NativeReceived {
                count: Index(received.count.try_into().unwrap_or(u64::MAX)),
                descriptors: received.descriptors.into_iter().map(Into::into).collect(),
                had_more: received.had_more,
            }))
        })
    }

    /// Ends the stream to the peer. The other direction continues.
    #[napi]
    pub fn end(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.socket()?.end())
    }

    /// Closes the handle. A watcher closes its own when the socket is removed from it.
    #[napi]
    pub fn close(&mut self) {
        self.socket = None;
    }
}
