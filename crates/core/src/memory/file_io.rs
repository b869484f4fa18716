//! Reads and writes memory files.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;

use super::bytes::{ByteSink, ByteSource};
use super::copy::{pread, pwrite, write_memory};
use super::file::{Kind, MemoryFile};
use super::sys::Window;
use crate::range::{to_offset, to_u64, to_usize};
use crate::{Error, ErrorCode, Range, Result};

impl MemoryFile {
    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE` past the end of the file, `ERR_INVALID_ARGUMENT` for a device (read its regions instead),
    /// `ERR_SYSTEM`.
    pub fn read<'a>(&self, offset: u64, into: impl Into<ByteSink<'a>>) -> Result<()> {
        let mut rest = into.into();
        let Some((fd, range)) = self.io(offset, rest.len())? else {
            return Ok(());
        };
        let mut at = offset;
        while !rest.is_empty() {
            match pread(fd, &mut rest, to_offset(at)?) {
                Ok(0) => return Err(self.beyond_end(&range)),
                Ok(count) => {
                    at = at.saturating_add(to_u64(count));
                    rest.take(count);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Error::os(
                        ErrorCode::System,
                        errno,
                        "pread",
                        format!("reading {range} of a file"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Writes `from` at `offset`. Never extends the file.
    ///
    /// # Errors
    /// As [`read`](Self::read); `ERR_MEMORY_FAULT` if the file is truncated meanwhile.
    pub fn write<'a>(&self, offset: u64, from: impl Into<ByteSource<'a>>) -> Result<()> {
        let from = from.into();
        let Some((fd, range)) = self.io(offset, from.len())? else {
            return Ok(());
        };
        let Kind::Memory {
            fixed,
            hugetlb,
            page_size,
            ..
        } = *self.kind
        else {
            return Ok(());
        };
        if hugetlb || fixed.is_none() {
            // hugetlb files do not support write(2); and for a file of variable length, or one that is open for
            // appending, only a mapping never writes past the present end.
            return write_mapped(fd, page_size, &range, from);
        }
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            match pwrite(fd, rest, to_offset(at)?) {
                Ok(0) => return Err(self.beyond_end(&range)),
                Ok(count) => {
                    at = at.saturating_add(to_u64(count));
                    rest = rest.split_at(count).1;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Error::os(
                        ErrorCode::System,
                        errno,
                        "pwrite",
                        format!("writing {range} of a file"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks a read or write against the length; returns `None` if it is empty.
    fn io(&self, offset: u64, length: usize) -> Result<Option<(BorrowedFd<'_>, Range)>> {
        let Kind::Memory { fd, .. } = &*self.kind else {
            let message =
                "a device's file cannot be read or written directly. Access its regions instead";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        };
        let file_length = self.length()?;
        if length == 0 && offset <= file_length {
            return Ok(None);
        }
        let range = Range::new(offset, to_u64(length.max(1)))?;
        range.check_within(file_length, "the file")?;
        Ok(Some((fd.as_fd(), range)))
    }

    fn beyond_end(&self, range: &Range) -> Error {
        let length = self.length().unwrap_or(0);
        let message = format!("{range} ends beyond the file, which is now {length:#x} bytes long");
        Error::new(ErrorCode::OutOfRange, message)
    }
}

fn write_mapped(
    fd: BorrowedFd<'_>,
    page_size: u64,
    range: &Range,
    from: ByteSource<'_>,
) -> Result<()> {
    let start = range.start() & !page_size.wrapping_sub(1);
    let end = range
        .end()
        .checked_next_multiple_of(page_size)
        .unwrap_or(range.end());
    let length = to_usize(end.saturating_sub(start))?;
    let window = Window::new(
        length,
        ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        fd,
        to_offset(start)?,
    )
    .map_err(|errno| {
        Error::os(
            ErrorCode::System,
            errno,
            "mmap",
            format!("writing {range} of a file"),
        )
    })?;
    let within = to_usize(range.start().saturating_sub(start))?;
    let operation = || format!("{range} is not in a mapping of {length:#x} bytes from {start:#x}");
    let address = window.at(within);
    write_memory(
        address.ok_or_else(|| Error::new(ErrorCode::OutOfRange, operation()))?,
        from,
        format_args!("writing {range} of a file"),
    )
}
