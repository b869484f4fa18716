//! The rules for decoding any bytes from the kernel. The fuzz targets share them.

use std::collections::HashSet;

use peerdma_core::vfio::{ContainerInfo, RegionInfo, capabilities};
use peerdma_core::{ErrorCode, Range};

/// The fields of `struct vfio_iommu_type1_info`, from a reader independent of the one under test.
#[derive(Debug, PartialEq, Eq)]
pub struct Container {
    pub page_sizes: u64,
    /// The first and last addresses.
    pub iova: Vec<(u64, u64)>,
    pub dma_avail: Option<u32>,
}

/// The fields of `struct vfio_region_info`, from the independent reader.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    pub length: u64,
    pub file_offset: u64,
    pub access: (bool, bool),
    /// The offsets and sizes.
    pub areas: Vec<(u64, u64)>,
    pub msix: bool,
}

/// Reads the number of `size` bytes at `at`, one byte at a time; `None` past the end.
fn number(bytes: &[u8], at: u128, size: u128) -> Option<u64> {
    let mut value = 0_u64;
    for index in (0..size).rev() {
        value = value << 8 | u64::from(*bytes.get(usize::try_from(at + index).ok()?)?);
    }
    Some(value)
}

/// Returns the offsets and ids of the capabilities; `None` for an invalid chain.
fn chain(bytes: &[u8], first: u64) -> Option<Vec<(u128, u64)>> {
    let (mut found, mut seen, mut at) = (Vec::new(), HashSet::new(), u128::from(first));
    while at != 0 {
        let whole = at + 8 <= bytes.len() as u128;
        if at % 4 != 0 || !whole || !seen.insert(at) || found.len() >= bytes.len() / 8 {
            return None;
        }
        found.push((at, number(bytes, at, 2)?));
        at = u128::from(number(bytes, at + 4, 4)?);
    }
    Some(found)
}

fn pairs(bytes: &[u8], at: u128) -> Option<Vec<(u64, u64)>> {
    let count = u128::from(number(bytes, at + 8, 4)?);
    if count > 0 && at + 16 + 16 * count > bytes.len() as u128 {
        return None;
    }
    let pair = |n| {
        Some((
            number(bytes, at + 16 + 16 * n, 8)?,
            number(bytes, at + 24 + 16 * n, 8)?,
        ))
    };
    (0..count).map(pair).collect()
}

/// Returns `None` for invalid bytes.
pub fn read_container(bytes: &[u8]) -> Option<Container> {
    let flags = number(bytes, 4, 4)?;
    let page_sizes = if flags & 1 == 1 {
        number(bytes, 8, 8)?
    } else {
        0
    };
    let first = if flags & 2 == 2 {
        number(bytes, 16, 4)?
    } else {
        0
    };
    let (mut iova, mut dma_avail) = (Vec::new(), None);
    for (at, id) in chain(bytes, first)? {
        if id == 1 {
            iova = pairs(bytes, at)?;
            if iova.iter().any(|(start, last)| start > last) {
                return None;
            }
        }
        if id == 3 {
            dma_avail = Some(u32::try_from(number(bytes, at + 8, 4)?).ok()?);
        }
    }
    // The last address of all cannot be mapped.
    iova.retain(|(start, _)| *start < u64::MAX);
    iova.iter_mut()
        .for_each(|(_, last)| *last = (*last).min(u64::MAX - 1));
    iova.sort_unstable();
    Some(Container {
        page_sizes,
        iova,
        dma_avail,
    })
}

/// Returns `None` for invalid bytes, `Some(None)` for an empty region.
pub fn read_region(bytes: &[u8]) -> Option<Option<Region>> {
    let flags = number(bytes, 4, 4)?;
    let (length, file_offset) = (number(bytes, 16, 8)?, number(bytes, 24, 8)?);
    if length == 0 {
        return Some(None);
    }
    if u128::from(file_offset) + u128::from(length) > u128::from(u64::MAX) {
        return None;
    }
    let mappable = flags & 4 == 4;
    let mut areas = if mappable {
        vec![(0, length)]
    } else {
        Vec::new()
    };
    let mut msix = false;
    let first = if flags & 8 == 8 {
        number(bytes, 12, 4)?
    } else {
        0
    };
    for (at, id) in chain(bytes, first)? {
        if id == 1 && mappable {
            areas = pairs(bytes, at)?;
            areas.retain(|(_, size)| *size > 0);
            let end = |(offset, size): &(u64, u64)| u128::from(*offset) + u128::from(*size);
            if areas.iter().any(|area| end(area) > u128::from(length)) {
                return None;
            }
        }
        msix |= id == 3;
    }
    areas.sort_unstable();
    Some(Some(Region {
        length,
        file_offset,
        access: (flags & 1 == 1, flags & 2 == 2),
        areas,
        msix,
    }))
}

/// Panics if [`ContainerInfo::decode`] breaks a rule.
pub fn check_container(bytes: &[u8]) {
    let expected = read_container(bytes);
    let decoded = ContainerInfo::decode(bytes);
    if let Err(error) = &decoded {
        assert_eq!(error.code(), ErrorCode::BadKernelData);
    }
    let found = decoded.ok().map(|info| Container {
        page_sizes: info.page_sizes,
        iova: in_order(&info.iova_ranges, |range| (range.start(), range.end() - 1)),
        dma_avail: info.dma_avail,
    });
    assert_eq!(found, expected);
}

/// Panics if [`RegionInfo::decode`] breaks a rule.
pub fn check_region(bytes: &[u8]) {
    let expected = read_region(bytes);
    let decoded = RegionInfo::decode(bytes);
    if let Err(error) = &decoded {
        assert_eq!(error.code(), ErrorCode::BadKernelData);
    }
    let found = decoded.ok().map(|info| {
        info.map(|info| {
            for area in &info.mmap_areas {
                assert!(area.start() < area.end() && area.end() <= info.length);
            }
            Region {
                length: info.length,
                file_offset: info.file_offset,
                access: (info.readable, info.writable),
                areas: in_order(&info.mmap_areas, |area| (area.start(), area.len())),
                msix: info.msix_mappable,
            }
        })
    });
    assert_eq!(found, expected);
}

/// Panics if [`capabilities`] or its result breaks a rule.
pub fn check_capabilities(bytes: &[u8], first: u32) {
    let expected = chain(bytes, u64::from(first));
    let Ok(found) = capabilities(bytes, first) else {
        assert_eq!(expected, None);
        return;
    };
    let expected = expected.unwrap_or_default();
    assert_eq!(found.len(), expected.len());
    for (cap, (at, id)) in found.iter().zip(expected) {
        assert_eq!(u64::from(cap.id), id);
        assert_eq!(number(bytes, at + 2, 2), Some(u64::from(cap.version)));
        for offset in [0, 8, 12, 4096, usize::MAX - 3, usize::MAX] {
            let there = at + offset as u128;
            assert_eq!(
                cap.u32_at(offset).ok().map(u64::from),
                number(bytes, there, 4)
            );
            assert_eq!(cap.u64_at(offset).ok(), number(bytes, there, 8));
        }
        assert_eq!(cap.pairs().ok(), pairs(bytes, at));
    }
}

fn in_order(ranges: &[Range], pair: impl Fn(&Range) -> (u64, u64)) -> Vec<(u64, u64)> {
    assert!(ranges.is_sorted());
    ranges.iter().map(pair).collect()
}
