//! The control message `SCM_RIGHTS`, which carries descriptors (`unix(7)`, `cmsg(3)`).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_uint, msghdr};

use crate::Descriptor;
use crate::range::to_u64;

/// The largest number of descriptors in a message (Linux, `SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;

const FD_SIZE: usize = size_of::<RawFd>();
/// The words of a buffer. An option of the socket may add a message of another kind.
const WORDS: usize = 256;

/// The buffer of control messages, aligned as their headers require.
pub(super) struct ControlBuffer {
    words: [u64; WORDS],
}

impl ControlBuffer {
    pub(super) const fn new() -> Self {
        Self { words: [0; WORDS] }
    }

    /// Makes the whole buffer that of a message.
    const fn attach(&mut self, message: &mut msghdr) {
        message.msg_control = self.words.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; WORDS]>();
    }

    /// Makes the buffer that of a message to receive. It has room for `room` descriptors, [`MAX_DESCRIPTORS`] at most.
    pub(super) fn attach_room(&mut self, message: &mut msghdr, room: usize) {
        if room == 0 {
            return;
        }
        self.attach(message);
        if room < MAX_DESCRIPTORS {
            let length = c_uint::try_from(room.saturating_mul(FD_SIZE)).unwrap_or(0);
            // SAFETY: the function only computes. The result is less than 1032, and the buffer has 2048 bytes.
            message.msg_controllen =
                usize::try_from(unsafe { libc::CMSG_LEN(length) }).unwrap_or(0);
        }
    }

    /// Makes the buffer, with these descriptors, that of a message to send. Sends no more than [`MAX_DESCRIPTORS`].
    pub(super) fn attach_rights(&mut self, message: &mut msghdr, descriptors: &[RawFd]) {
        let count = descriptors.len().min(MAX_DESCRIPTORS);
        if count == 0 {
            return;
        }
        let length = c_uint::try_from(count.saturating_mul(FD_SIZE)).unwrap_or(0);
        self.attach(message);
        // SAFETY: the function only computes. The result is at most 1032, less than the buffer.
        message.msg_controllen = usize::try_from(unsafe { libc::CMSG_SPACE(length) }).unwrap_or(0);
        // SAFETY: the message has the buffer, whose length is that of a header and the descriptors.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = usize::try_from(libc::CMSG_LEN(length)).unwrap_or(0);
            let data = libc::CMSG_DATA(header).cast::<c_int>();
            for (index, fd) in descriptors.iter().take(count).enumerate() {
                data.wrapping_add(index).write_unaligned(*fd);
            }
        }
    }
}

/// Takes the descriptors of a message that the kernel has just filled.
///
/// # Safety
/// `recvmsg` filled the message and its buffer, which still exists, and no one has taken its descriptors.
pub(super) unsafe fn take_rights(message: &msghdr) -> Vec<Descriptor> {
    let mut found = Vec::new();
    // SAFETY: the kernel wrote headers with correct lengths within the buffer, and CMSG_NXTHDR stays within it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let start = usize::try_from(libc::CMSG_LEN(0)).unwrap_or(0);
                let bytes = to_u64((*header).cmsg_len).saturating_sub(to_u64(start));
                let data = libc::CMSG_DATA(header).cast::<c_int>();
                for index in 0..usize::try_from(bytes).unwrap_or(0) / FD_SIZE {
                    let fd = data.wrapping_add(index).read_unaligned();
                    found.push(Descriptor::new(OwnedFd::from_raw_fd(fd)));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    found
}
