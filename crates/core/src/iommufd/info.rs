//! The capabilities of an address space, decoded.

use crate::range::inclusive_ranges;
use crate::{Error, ErrorCode, Range, Result};

/// The capabilities of an address space (`IOMMU_IOAS_IOVA_RANGES`). Attaching or detaching a device changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoasInfo {
    /// The alignment of both ends of a mapping, in bytes.
    pub alignment: u64,
    /// The IOVA ranges for mappings, sorted.
    pub iova_ranges: Vec<Range>,
}

impl IoasInfo {
    /// Decodes pairs of first and last address. A range that ends at 2^64 - 1 loses that last address.
    pub(super) fn decode(pairs: &[(u64, u64)], alignment: u64) -> Result<Self> {
        if !alignment.is_power_of_two() {
            let message = format!("the IOVA alignment {alignment:#x} is not a power of two");
            return Err(Error::new(ErrorCode::BadKernelData, message));
        }
        Ok(Self {
            alignment,
            iova_ranges: inclusive_ranges(pairs.iter().copied())?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_sorted() {
        let info = IoasInfo::decode(&[(0xfef0_0000, u64::MAX), (0, 0xfedf_ffff)], 4096).unwrap();
        let ends: Vec<(u64, u64)> = info
            .iova_ranges
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect();
        assert_eq!(ends, [(0, 0xfee0_0000), (0xfef0_0000, u64::MAX)]);
        assert_eq!(info.alignment, 4096);
    }

    #[test]
    fn rejects_inconsistent_kernel_data() {
        let code = |pairs: &[(u64, u64)], alignment| {
            IoasInfo::decode(pairs, alignment).unwrap_err().code()
        };
        assert_eq!(code(&[(5, 4)], 4096), ErrorCode::BadKernelData);
        assert_eq!(code(&[], 0), ErrorCode::BadKernelData);
        assert_eq!(code(&[], 3), ErrorCode::BadKernelData);
        assert_eq!(IoasInfo::decode(&[], 1).unwrap().iova_ranges, []);
    }
}
