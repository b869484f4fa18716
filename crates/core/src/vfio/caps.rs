//! The capability chain after VFIO's info structures (`struct vfio_info_cap_header`).

use crate::{Error, ErrorCode, Result};

const HEADER: usize = 8;

/// A capability, with the bytes from its header to the end of the whole structure. A capability does not contain its
/// own length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability<'a> {
    /// The kind of capability; its meaning depends on the structure.
    pub id: u16,
    /// The version of its layout.
    pub version: u16,
    bytes: &'a [u8],
}

impl Capability<'_> {
    /// Reads the 32-bit field at `offset` bytes from the header's start.
    ///
    /// # Errors
    /// `ERR_BAD_KERNEL_DATA` if the field is beyond the structure.
    pub fn u32_at(&self, offset: usize) -> Result<u32> {
        u32_at(self.bytes, offset)
    }

    /// Reads the 64-bit field at `offset` bytes from the header's start.
    ///
    /// # Errors
    /// `ERR_BAD_KERNEL_DATA` if the field is beyond the structure.
    pub fn u64_at(&self, offset: usize) -> Result<u64> {
        u64_at(self.bytes, offset)
    }

    /// Reads the pairs of a capability, such as IOVA ranges or sparse mmap areas. Their count is at byte 8.
    /// From byte 16 on, a pair is two fields of 64 bits.
    ///
    /// # Errors
    /// `ERR_BAD_KERNEL_DATA` if a pair is beyond the structure.
    pub fn pairs(&self) -> Result<Vec<(u64, u64)>> {
        let count = usize::try_from(self.u32_at(8)?).unwrap_or(usize::MAX);
        let room = self.bytes.len().saturating_sub(16) / 16;
        if count > room {
            return Err(bad(format!(
                "capability {} has {count} entries in space for {room}",
                self.id
            )));
        }
        let entries = self
            .bytes
            .get(16..)
            .unwrap_or_default()
            .chunks_exact(16)
            .take(count);
        entries
            .map(|entry| Ok((u64_at(entry, 0)?, u64_at(entry, 8)?)))
            .collect()
    }
}

/// Returns the chain in `structure` that starts at byte `first`; 0 means no chain.
///
/// # Errors
/// `ERR_BAD_KERNEL_DATA` if the chain loops, leaves the structure, or is not aligned to 4 bytes.
pub fn capabilities(structure: &[u8], first: u32) -> Result<Vec<Capability<'_>>> {
    let mut found: Vec<Capability<'_>> = Vec::new();
    let most = structure.len() / HEADER;
    let mut next = first;
    while next != 0 {
        if found.len() >= most {
            return Err(bad("the chain of capabilities loops".into()));
        }
        if !next.is_multiple_of(4) {
            return Err(bad(format!("a capability at {next:#x} is not aligned")));
        }
        let bytes = usize::try_from(next)
            .ok()
            .and_then(|at| structure.get(at..))
            .unwrap_or_default();
        if bytes.len() < HEADER {
            return Err(bad(format!(
                "a capability at {next:#x} is outside its structure"
            )));
        }
        found.push(Capability {
            id: u16_at(bytes, 0)?,
            version: u16_at(bytes, 2)?,
            bytes,
        });
        next = u32_at(bytes, 4)?;
    }
    Ok(found)
}

/// Reads the 16-bit field at `offset`.
fn u16_at(bytes: &[u8], offset: usize) -> Result<u16> {
    field(bytes, offset).map(u16::from_ne_bytes)
}

/// Reads the 32-bit field at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    field(bytes, offset).map(u32::from_ne_bytes)
}

/// Reads the 64-bit field at `offset`.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Result<u64> {
    field(bytes, offset).map(u64::from_ne_bytes)
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>());
    field
        .copied()
        .ok_or_else(|| bad(format!("a structure ends before its field at {offset:#x}")))
}

fn bad(message: String) -> Error {
    Error::new(ErrorCode::BadKernelData, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Creates a structure of `size` bytes with headers at the given offsets.
    fn chain(size: usize, headers: &[(usize, u16, u32)]) -> Vec<u8> {
        let mut bytes = vec![0_u8; size];
        for (at, id, next) in headers {
            bytes[*at..at + 2].copy_from_slice(&id.to_ne_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&1_u16.to_ne_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&next.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn returns_a_chain_in_its_own_order() {
        let bytes = chain(96, &[(24, 2, 64), (64, 3, 40), (40, 1, 0)]);
        let ids: Vec<u16> = capabilities(&bytes, 24)
            .unwrap()
            .iter()
            .map(|cap| cap.id)
            .collect();
        assert_eq!(ids, [2, 3, 1]);
        assert!(capabilities(&bytes, 0).unwrap().is_empty());
    }

    #[test]
    fn rejects_loops_and_offsets_beyond_the_structure() {
        let own = chain(64, &[(24, 1, 24)]);
        let pair = chain(64, &[(24, 1, 40), (40, 2, 24)]);
        let unaligned = chain(64, &[(24, 1, 41)]);
        let outside = chain(64, &[(24, 1, 4096)]);
        let cut = chain(64, &[(24, 1, 60)]);
        let huge = chain(64, &[(24, 1, u32::MAX - 3)]);
        for bytes in [own, pair, unaligned, outside, cut, huge] {
            assert_eq!(
                capabilities(&bytes, 24).unwrap_err().code(),
                ErrorCode::BadKernelData
            );
        }
        assert!(capabilities(&[], 4).is_err());
    }

    #[test]
    fn reads_pairs_only_within_the_structure() {
        let mut bytes = chain(24 + 16 + 32, &[(24, 1, 0)]);
        bytes[32..36].copy_from_slice(&2_u32.to_ne_bytes());
        bytes[40..48].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[64..72].copy_from_slice(&9_u64.to_ne_bytes());
        assert_eq!(
            capabilities(&bytes, 24).unwrap()[0].pairs().unwrap(),
            [(7, 0), (0, 9)]
        );
        for count in [3, 1000, u32::MAX] {
            bytes[32..36].copy_from_slice(&count.to_ne_bytes());
            assert!(capabilities(&bytes, 24).unwrap()[0].pairs().is_err());
        }
    }
}
