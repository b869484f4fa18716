//! Unix domain sockets, the descriptors in their messages, and the thread that waits for them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;

use common::{code, failure};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use peerdma_core::event::{EventFd, Readiness, Watcher};
use peerdma_core::socket::{MAX_DESCRIPTORS, Received, UnixSocket};
use peerdma_core::{Descriptor, ErrorCode};

fn receive(socket: &UnixSocket, length: usize) -> (Vec<u8>, Vec<Descriptor>) {
    let mut bytes = vec![0; length];
    let Received {
        count, descriptors, ..
    } = socket
        .receive(&mut bytes, MAX_DESCRIPTORS)
        .unwrap()
        .unwrap();
    bytes.truncate(count);
    (bytes, descriptors)
}

/// Returns whether the descriptor is closed on exec.
fn is_closed_on_exec(descriptor: &Descriptor) -> bool {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let flags = fcntl(descriptor, FcntlArg::F_GETFD).unwrap();
    FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC)
}

#[test]
fn carries_bytes_both_ways_and_ends_with_the_peer() {
    let (one, other) = UnixSocket::pair().unwrap();
    assert!(one.receive(&mut [0], MAX_DESCRIPTORS).unwrap().is_none());
    assert_eq!(one.send(b"there", &[]).unwrap(), Some(5));
    assert_eq!(other.send(b"back", &[]).unwrap(), Some(4));
    assert_eq!(receive(&other, 3).0, b"the");
    assert_eq!(receive(&other, 9).0, b"re");
    assert_eq!(receive(&one, 4).0, b"back");
    drop(other);
    assert_eq!(receive(&one, 4).0, b"");
    let error = failure(one.send(b"late", &[]));
    assert_eq!(
        (error.code(), error.errno()),
        (ErrorCode::PeerClosed, Some(Errno::EPIPE))
    );
}

#[test]
fn carries_descriptors_with_the_first_byte_of_their_message() {
    let (one, other) = UnixSocket::pair().unwrap();
    let event = EventFd::new().unwrap();
    one.send(b"before", &[]).unwrap();
    one.send(b"message", &[event.raw_fd(), one.raw_fd()])
        .unwrap();
    one.send(b"after", &[]).unwrap();
    assert!(receive(&other, 6).1.is_empty());
    let (bytes, descriptors) = receive(&other, 2);
    assert_eq!((bytes.as_slice(), descriptors.len()), (b"me".as_slice(), 2));
    assert!(descriptors.iter().all(is_closed_on_exec));
    assert!(receive(&other, 10).1.is_empty());
    let copy = EventFd::from_fd(descriptors[0].raw_fd()).unwrap();
    copy.signal(3).unwrap();
    assert_eq!(event.take().unwrap(), 3);
}

#[test]
fn carries_as_many_descriptors_as_the_kernel_permits() {
    let (one, other) = UnixSocket::pair().unwrap();
    let most = vec![one.raw_fd(); MAX_DESCRIPTORS];
    one.send(&[1], &most).unwrap();
    assert_eq!(receive(&other, 1).1.len(), MAX_DESCRIPTORS);
    let over = vec![one.raw_fd(); MAX_DESCRIPTORS + 1];
    assert_eq!(code(one.send(&[1], &over)), ErrorCode::InvalidArgument);
}

#[test]
fn sends_a_part_of_a_message_that_the_queue_cannot_hold() {
    let (one, other) = UnixSocket::pair().unwrap();
    let bytes = vec![7; 1 << 22];
    let sent = one.send(&bytes, &[one.raw_fd()]).unwrap().unwrap();
    assert!(sent > 0 && sent < bytes.len());
    assert_eq!(one.send(&bytes, &[]).unwrap(), None);
    let (first, descriptors) = receive(&other, sent);
    assert_eq!(descriptors.len(), 1);
    assert_eq!(one.send(&bytes, &[]).unwrap().is_some(), !first.is_empty());
}

#[test]
fn rejects_empty_messages_closed_descriptors_and_other_files() {
    let (one, other) = UnixSocket::pair().unwrap();
    assert_eq!(code(one.send(&[], &[])), ErrorCode::InvalidArgument);
    assert_eq!(
        code(one.receive(&mut [], MAX_DESCRIPTORS)),
        ErrorCode::InvalidArgument
    );
    assert_eq!(
        code(one.send(&[1], &[i32::MAX])),
        ErrorCode::InvalidArgument
    );
    assert!(other.receive(&mut [0], MAX_DESCRIPTORS).unwrap().is_none());
    let event = EventFd::new().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for fd in [-1, i32::MAX, event.raw_fd(), file.as_raw_fd()] {
        assert_eq!(code(UnixSocket::from_fd(fd)), ErrorCode::InvalidArgument);
    }
    for fd in [-1, i32::MAX, one.raw_fd(), file.as_raw_fd()] {
        assert_eq!(code(EventFd::from_fd(fd)), ErrorCode::InvalidArgument);
    }
    let copy = UnixSocket::from_fd(one.raw_fd()).unwrap();
    drop(one);
    copy.send(b"x", &[]).unwrap();
    assert_eq!(receive(&other, 1).0, b"x");
}

#[test]
fn connects_to_a_listener_and_reports_that_there_is_none() {
    let path = std::env::temp_dir().join(format!("peerdma-sockets-{}", std::process::id()));
    let name = path.to_str().unwrap();
    assert_eq!(
        failure(UnixSocket::connect(name)).errno(),
        Some(Errno::ENOENT)
    );
    let long = "x".repeat(200);
    assert_eq!(
        failure(UnixSocket::connect(&long)).errno(),
        Some(Errno::ENAMETOOLONG)
    );
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let socket = UnixSocket::connect(name).unwrap().unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = UnixSocket::from_fd(accepted.as_raw_fd()).unwrap();
    socket.send(b"hello", &[]).unwrap();
    assert_eq!(receive(&accepted, 5).0, b"hello");
    // Connections that nobody accepts fill the queue.
    let mut waiting = Vec::new();
    while let Some(socket) = UnixSocket::connect(name).unwrap() {
        waiting.push(socket);
    }
    assert!(!waiting.is_empty());
    drop(listener);
    assert_eq!(
        failure(UnixSocket::connect(name)).errno(),
        Some(Errno::ECONNREFUSED)
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn notifies_once_when_a_socket_is_ready() {
    let (sender, notified) = channel();
    let watcher = Watcher::new(move || sender.send(()).unwrap()).unwrap();
    let (one, other) = UnixSocket::pair().unwrap();
    let receive_only = Readiness {
        receive: true,
        send: false,
    };
    watcher.await_socket(1, &one, receive_only).unwrap();
    assert!(
        notified
            .recv_timeout(std::time::Duration::from_millis(50))
            .is_err()
    );
    other.send(b"x", &[]).unwrap();
    notified.recv().unwrap();
    assert_eq!(watcher.collect().unwrap(), [(1, 1)]);
    other.send(b"y", &[]).unwrap();
    assert!(
        notified
            .recv_timeout(std::time::Duration::from_millis(50))
            .is_err()
    );
    watcher.await_socket(1, &one, receive_only).unwrap();
    notified.recv().unwrap();
    assert_eq!(watcher.collect().unwrap(), [(1, 1)]);
    let send_too = Readiness {
        receive: false,
        send: true,
    };
    watcher.await_socket(1, &one, send_too).unwrap();
    notified.recv().unwrap();
    assert_eq!(watcher.collect().unwrap(), [(1, 1)]);
    let event = EventFd::new().unwrap();
    watcher.add(2, &event).unwrap();
    assert_eq!(
        code(watcher.await_socket(2, &one, send_too)),
        ErrorCode::InvalidArgument
    );
    assert_eq!(
        code(watcher.await_socket(u64::MAX, &one, send_too)),
        ErrorCode::InvalidArgument
    );
    watcher.remove(1).unwrap();
    assert_eq!(watcher.collect().unwrap(), []);
    // The watcher held the socket: the peer sees its end now.
    drop(one);
    let mut left = [0; 8];
    let ended = loop {
        match other.receive(&mut left, MAX_DESCRIPTORS) {
            Ok(Some(received)) if received.count == 0 => break true,
            Err(error) => break error.code() == ErrorCode::PeerClosed,
            Ok(_) => {}
        }
    };
    assert!(ended);
}

/// Changes the limit of this process's descriptors, so it runs its checks in a child process.
#[test]
fn closes_what_arrived_if_a_descriptor_does_not_fit() {
    const CHILD: &str = "PEERDMA_TEST_DESCRIPTOR_LIMIT";
    if std::env::var_os(CHILD).is_none() {
        let name = "closes_what_arrived_if_a_descriptor_does_not_fit";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(CHILD, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (one, other) = UnixSocket::pair().unwrap();
    one.send(b"message", &[one.raw_fd(); 100]).unwrap();
    let before = open();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let room = u64::try_from(before + 20).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, room, hard).unwrap();
    let error = failure(other.receive(&mut [0; 7], MAX_DESCRIPTORS));
    assert_eq!(
        (error.code(), error.errno()),
        (ErrorCode::System, Some(Errno::EMFILE))
    );
    assert!(error.message().starts_with("socket: receiving"));
    assert_eq!(open(), before);
}

#[test]
fn accepts_no_more_descriptors_than_there_is_room_for() {
    let (one, other) = UnixSocket::pair().unwrap();
    for (sent, room, kept) in [
        (3, 0, 0),
        (3, 1, 1),
        (3, 2, 2),
        (3, 3, 3),
        (1, 2, 1),
        (0, 0, 0),
    ] {
        one.send(b"message", &vec![one.raw_fd(); sent]).unwrap();
        let received = other.receive(&mut [0; 7], room).unwrap().unwrap();
        assert_eq!(received.count, 7);
        assert_eq!(received.descriptors.len(), kept);
        assert_eq!(received.had_more, kept < sent);
    }
}

#[test]
fn sends_many_messages_each_with_its_descriptor() {
    let (one, other) = UnixSocket::pair().unwrap();
    let event = EventFd::new().unwrap();
    let messages = [
        (3, Some(event.raw_fd())),
        (2, None),
        (4, Some(one.raw_fd())),
    ];
    assert_eq!(one.send_each(b"onetwfour", messages).unwrap(), 9);
    for (text, count) in [("one", 1), ("tw", 0), ("four", 1)] {
        let (bytes, descriptors) = receive(&other, text.len());
        assert_eq!(
            (bytes.as_slice(), descriptors.len()),
            (text.as_bytes(), count)
        );
    }
}

#[test]
fn sends_messages_until_the_queue_is_full_or_one_fails() {
    let (one, other) = UnixSocket::pair().unwrap();
    let bytes = vec![7; 100 * 10_000];
    let sent = one.send_each(&bytes, vec![(100, None); 10_000]).unwrap();
    assert!(sent > 0 && sent < bytes.len());
    assert_eq!(one.send_each(&bytes, [(100, None)]).unwrap(), 0);
    assert_eq!(receive(&other, sent).0.len(), sent);
    let closed = [(1, None), (1, Some(i32::MAX)), (1, None)];
    assert_eq!(one.send_each(b"abc", closed).unwrap(), 1);
    assert_eq!(
        code(one.send_each(b"bc", closed[1..].to_vec())),
        ErrorCode::InvalidArgument
    );
    // Lengths past the end of the bytes, and none.
    assert_eq!(one.send_each(b"d", [(usize::MAX, None)]).unwrap(), 1);
    assert_eq!(one.send_each(b"", []).unwrap(), 0);
    assert_eq!(receive(&other, 9).0, b"ad");
}

#[test]
fn ends_one_direction() {
    let (one, other) = UnixSocket::pair().unwrap();
    one.send(b"last", &[]).unwrap();
    one.end().unwrap();
    one.end().unwrap();
    assert_eq!(code(one.send(b"late", &[])), ErrorCode::PeerClosed);
    assert_eq!(receive(&other, 9).0, b"last");
    assert_eq!(receive(&other, 9).0, b"");
    other.send(b"reply", &[]).unwrap();
    assert_eq!(receive(&one, 9).0, b"reply");
    drop(other);
    one.end().unwrap();
}
