//! Reads and writes memory files.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::mman::ProtFlags;

use super::bytes::{ByteSink, ByteSource};
use super::copy::{read_file, write_file, write_memory};
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
        let into = into.into();
        let Some((fd, range)) = self.io(offset, into.len())? else {
            return Ok(());
        };
        self.copied(
            read_file(fd, into, to_offset(offset)?),
            "pread",
            "reading",
            &range,
        )
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
        if self.is_hugetlb() || !self.is_fixed() {
            // hugetlb files do not support write(2); and for a file of variable length, or one that is open for
            // appending, only a mapping never writes past the present end.
            return write_mapped(fd, self.page_size(), &range, from);
        }
        self.copied(
            write_file(fd, from, to_offset(offset)?),
            "pwrite",
            "writing",
            &range,
        )
    }

    /// Converts the result of a read or write of `range`.
    fn copied(
        &self,
        result: nix::Result<bool>,
        syscall: &'static str,
        verb: &str,
        range: &Range,
    ) -> Result<()> {
        match result {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.beyond_end(range)),
            Err(errno) => {
                let operation = format!("{verb} {range} of a file");
                Err(Error::os(ErrorCode::System, errno, syscall, operation))
            }
        }
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
