//! Bytes of this process for system calls, by address and length. They are never a Rust reference: a device can write
//! them at any time (a DMA buffer that is copied to guest memory, for example).

use std::marker::PhantomData;

/// Bytes to copy from.
#[derive(Debug, Clone, Copy)]
pub struct ByteSource<'bytes> {
    address: *const u8,
    length: usize,
    owner: PhantomData<&'bytes [u8]>,
}

/// Bytes to fill.
#[derive(Debug)]
pub struct ByteSink<'bytes> {
    address: *mut u8,
    length: usize,
    owner: PhantomData<&'bytes mut [u8]>,
}

impl ByteSource<'_> {
    /// Creates a source of `length` bytes at an address.
    ///
    /// # Safety
    /// The bytes are mapped, and stay mapped for `'bytes`. Others can write them meanwhile.
    #[must_use]
    pub const unsafe fn from_raw(address: *const u8, length: usize) -> Self {
        Self {
            address,
            length,
            owner: PhantomData,
        }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether the number of bytes is 0.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Splits the bytes after the first `count`, or after the last one if there are fewer.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        let count = count.min(self.length);
        let rest = Self {
            address: self.address.wrapping_add(count),
            length: self.length.saturating_sub(count),
            owner: PhantomData,
        };
        let first = Self {
            length: count,
            ..self
        };
        (first, rest)
    }

    /// Copies the bytes, reading each once, so that a caller checks and uses the same values.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        (0..self.length)
            // SAFETY: within the bytes, which `from_raw` or a slice guarantees; volatile, because others can write
            // them.
            .map(|index| unsafe { self.address.wrapping_add(index).read_volatile() })
            .collect()
    }

    pub(crate) const fn address(&self) -> *const u8 {
        self.address
    }
}

impl ByteSink<'_> {
    /// Creates a sink of `length` bytes at an address.
    ///
    /// # Safety
    /// The bytes are mapped, and stay mapped for `'bytes`, and no Rust reference to them is in use meanwhile. Others
    /// can write them.
    #[must_use]
    pub const unsafe fn from_raw(address: *mut u8, length: usize) -> Self {
        Self {
            address,
            length,
            owner: PhantomData,
        }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether the number of bytes is 0.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Removes and returns the first `count` bytes, or all if there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> Self {
        let count = count.min(self.length);
        let first = Self {
            address: self.address,
            length: count,
            owner: PhantomData,
        };
        self.address = self.address.wrapping_add(count);
        self.length = self.length.saturating_sub(count);
        first
    }

    pub(crate) const fn address(&mut self) -> *mut u8 {
        self.address
    }
}

impl<'bytes, T: AsRef<[u8]> + ?Sized> From<&'bytes T> for ByteSource<'bytes> {
    fn from(bytes: &'bytes T) -> Self {
        let bytes = bytes.as_ref();
        // SAFETY: the slice is borrowed for as long.
        unsafe { Self::from_raw(bytes.as_ptr(), bytes.len()) }
    }
}

impl<'bytes, T: AsMut<[u8]> + ?Sized> From<&'bytes mut T> for ByteSink<'bytes> {
    fn from(bytes: &'bytes mut T) -> Self {
        let bytes = bytes.as_mut();
        // SAFETY: the slice is borrowed exclusively for as long.
        unsafe { Self::from_raw(bytes.as_mut_ptr(), bytes.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut bytes = [1, 2, 3, 4, 5];
        let (first, rest) = ByteSource::from(&bytes).split_at(2);
        assert_eq!((first.to_vec(), rest.to_vec()), (vec![1, 2], vec![3, 4, 5]));
        let (all, none) = rest.split_at(9);
        assert_eq!((all.to_vec(), none.is_empty()), (vec![3, 4, 5], true));
        let mut sink = ByteSink::from(&mut bytes);
        assert_eq!((sink.take(2).len(), sink.len()), (2, 3));
        assert_eq!(
            (sink.take(9).len(), sink.len(), sink.is_empty()),
            (3, 0, true)
        );
    }
}
