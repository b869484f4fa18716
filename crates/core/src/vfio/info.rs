//! Decodes the kernel's information about containers and regions.

use super::abi::{
    VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};
use super::caps::{Capability, capabilities, u32_at, u64_at};
use crate::range::inclusive_ranges;
use crate::{Error, ErrorCode, Range, Result};

/// The capabilities of an IOMMU (`VFIO_IOMMU_GET_INFO`), which attaching or detaching a group changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// A bit for each page size in bytes; mappings must be aligned to the smallest.
    pub page_sizes: u64,
    /// The IOVA ranges for mappings, sorted. Empty on a kernel that does not report them (before 5.4).
    pub iova_ranges: Vec<Range>,
    /// The number of mappings that the container can still make. `None` on a kernel that does not report it (before
    /// 5.10).
    pub dma_avail: Option<u32>,
}

impl ContainerInfo {
    /// Decodes `struct vfio_iommu_type1_info` and its capabilities. Accepts any bytes.
    ///
    /// # Errors
    /// `ERR_BAD_KERNEL_DATA`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let flags = u32_at(bytes, 4)?;
        let page_sizes = if flags & VFIO_IOMMU_INFO_PGSIZES == 0 {
            0
        } else {
            u64_at(bytes, 8)?
        };
        let mut info = Self {
            page_sizes,
            iova_ranges: Vec::new(),
            dma_avail: None,
        };
        let first = if flags & VFIO_IOMMU_INFO_CAPS == 0 {
            0
        } else {
            u32_at(bytes, 16)?
        };
        for cap in capabilities(bytes, first)? {
            match u32::from(cap.id) {
                VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE => {
                    info.iova_ranges = inclusive_ranges(cap.pairs()?)?;
                }
                VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL => info.dma_avail = Some(cap.u32_at(8)?),
                _ => {}
            }
        }
        Ok(info)
    }
}

/// A region of a device (`VFIO_DEVICE_GET_REGION_INFO`): a BAR, the ROM, config space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionInfo {
    /// The length in bytes; never zero.
    pub length: u64,
    /// The offset in the device's file.
    pub file_offset: u64,
    /// Whether the region can be read.
    pub readable: bool,
    /// Whether the region can be written.
    pub writable: bool,
    /// The areas that can be mapped, from the region's start, sorted; an area can end within a page.
    pub mmap_areas: Vec<Range>,
    /// Whether the MSI-X table can be mapped with the rest.
    pub msix_mappable: bool,
}

impl RegionInfo {
    /// Decodes `struct vfio_region_info` and its capabilities. Accepts any bytes. Returns `None` for an empty region.
    ///
    /// # Errors
    /// `ERR_BAD_KERNEL_DATA`.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        let flags = u32_at(bytes, 4)?;
        let (length, file_offset) = (u64_at(bytes, 16)?, u64_at(bytes, 24)?);
        if length == 0 {
            return Ok(None);
        }
        let whole = Range::new(0, length)?;
        Range::new(file_offset, length).map_err(bad)?;
        let mut info = Self {
            length,
            file_offset,
            readable: flags & VFIO_REGION_INFO_FLAG_READ != 0,
            writable: flags & VFIO_REGION_INFO_FLAG_WRITE != 0,
            mmap_areas: if flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
                Vec::new()
            } else {
                vec![whole]
            },
            msix_mappable: false,
        };
        let first = if flags & VFIO_REGION_INFO_FLAG_CAPS == 0 {
            0
        } else {
            u32_at(bytes, 12)?
        };
        for cap in capabilities(bytes, first)? {
            match u32::from(cap.id) {
                VFIO_REGION_INFO_CAP_SPARSE_MMAP if flags & VFIO_REGION_INFO_FLAG_MMAP != 0 => {
                    info.mmap_areas = sparse_areas(&cap, length)?;
                }
                VFIO_REGION_INFO_CAP_MSIX_MAPPABLE => info.msix_mappable = true,
                _ => {}
            }
        }
        Ok(Some(info))
    }
}

fn sparse_areas(cap: &Capability<'_>, length: u64) -> Result<Vec<Range>> {
    let mut areas = Vec::new();
    for (offset, size) in cap.pairs()?.into_iter().filter(|(_, size)| *size > 0) {
        let area = Range::new(offset, size).map_err(bad)?;
        area.check_within(length, "the region").map_err(bad)?;
        areas.push(area);
    }
    areas.sort_unstable();
    Ok(areas)
}

/// The error for an invalid range from the kernel.
fn bad(error: Error) -> Error {
    error.recast(ErrorCode::BadKernelData, "reported by the kernel")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn words32(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn words64(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Returns a header with `id`, version 1 and `next`.
    fn header(id: u32, next: u32) -> Vec<u8> {
        words32(&[id | 1 << 16, next])
    }

    #[test]
    fn decodes_the_information_of_an_intel_iommu() {
        let mut bytes = words32(&[0, 3]);
        bytes.extend(words64(&[0x4020_1000]));
        bytes.extend(words32(&[24, 0]));
        bytes.extend(header(3, 40));
        bytes.extend(words32(&[65535, 0]));
        bytes.extend(header(1, 0));
        bytes.extend(words32(&[2, 0]));
        bytes.extend(words64(&[0, 0xfedf_ffff, 0xfef0_0000, u64::MAX]));
        let info = ContainerInfo::decode(&bytes).unwrap();
        assert_eq!(info.page_sizes, 0x4020_1000);
        assert_eq!(info.dma_avail, Some(65535));
        let ends: Vec<(u64, u64)> = info
            .iova_ranges
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect();
        assert_eq!(ends, [(0, 0xfee0_0000), (0xfef0_0000, u64::MAX)]);
    }

    #[test]
    fn rejects_an_iova_range_that_ends_before_it_starts() {
        let mut bytes = words32(&[0, 2, 0, 0, 24, 0]);
        bytes.extend(header(1, 0));
        bytes.extend(words32(&[1, 0]));
        bytes.extend(words64(&[5, 4]));
        assert_eq!(
            ContainerInfo::decode(&bytes).unwrap_err().code(),
            ErrorCode::BadKernelData
        );
        assert!(ContainerInfo::decode(&[0; 7]).is_err());
    }

    fn region(flags: u32, cap_offset: u32, size: u64, caps: &[u8]) -> Vec<u8> {
        let mut bytes = words32(&[0, flags, 2, cap_offset]);
        bytes.extend(words64(&[size, 2 << 40]));
        bytes.extend(caps);
        bytes
    }

    #[test]
    fn decodes_regions() {
        assert_eq!(RegionInfo::decode(&region(7, 0, 0, &[])).unwrap(), None);
        let plain = RegionInfo::decode(&region(7, 0, 0x100, &[]))
            .unwrap()
            .unwrap();
        assert!(plain.readable && plain.writable && !plain.msix_mappable);
        assert_eq!(plain.mmap_areas, [Range::new(0, 0x100).unwrap()]);
        assert_eq!(plain.file_offset, 2 << 40);
        let unmappable = RegionInfo::decode(&region(3, 0, 0x100, &[]))
            .unwrap()
            .unwrap();
        assert!(unmappable.mmap_areas.is_empty());
    }

    #[test]
    fn decodes_sparse_areas_and_msix() {
        let mut caps = header(1, 64);
        caps.extend(words32(&[1, 0]));
        caps.extend(words64(&[0x2000, 0x2000]));
        caps.extend(header(3, 0));
        let info = RegionInfo::decode(&region(15, 32, 0x4000, &caps))
            .unwrap()
            .unwrap();
        assert_eq!(info.mmap_areas, [Range::new(0x2000, 0x2000).unwrap()]);
        assert!(info.msix_mappable);
        let error = RegionInfo::decode(&region(15, 32, 0x3000, &caps)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadKernelData);
    }
}
