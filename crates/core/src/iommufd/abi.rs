//! Structures and ioctl numbers of iommufd address spaces (`include/uapi/linux/iommufd.h`), which no crate provides.
//! Each structure begins with its own size.

/// `IOMMU_IOAS_MAP_FIXED_IOVA`
pub(super) const MAP_FIXED_IOVA: u32 = 1 << 0;
/// `IOMMU_IOAS_MAP_WRITEABLE`
pub(super) const MAP_WRITEABLE: u32 = 1 << 1;
/// `IOMMU_IOAS_MAP_READABLE`
pub(super) const MAP_READABLE: u32 = 1 << 2;
/// `IOMMU_HWPT_ALLOC_DIRTY_TRACKING`
pub(super) const HWPT_DIRTY_TRACKING: u32 = 1 << 1;
/// `IOMMU_HWPT_DIRTY_TRACKING_ENABLE`
pub(super) const DIRTY_TRACKING_ENABLE: u32 = 1;
/// `IOMMU_HW_CAP_DIRTY_TRACKING`
pub(super) const HW_CAP_DIRTY_TRACKING: u64 = 1 << 0;

/// `struct iommu_destroy`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Destroy {
    pub(super) size: u32,
    pub(super) id: u32,
}

/// `struct iommu_ioas_alloc`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct IoasAlloc {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) out_ioas_id: u32,
}

/// `struct iommu_iova_range`; the range includes `last`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct IovaRange {
    pub(super) start: u64,
    pub(super) last: u64,
}

/// `struct iommu_ioas_iova_ranges`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct IovaRanges {
    pub(super) size: u32,
    pub(super) ioas_id: u32,
    pub(super) num_iovas: u32,
    pub(super) reserved: u32,
    pub(super) allowed_iovas: u64,
    pub(super) out_iova_alignment: u64,
}

/// `struct iommu_ioas_map`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) ioas_id: u32,
    pub(super) reserved: u32,
    pub(super) user_va: u64,
    pub(super) length: u64,
    pub(super) iova: u64,
}

/// `struct iommu_ioas_map_file`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct MapFile {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) ioas_id: u32,
    pub(super) fd: i32,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) iova: u64,
}

/// `struct iommu_ioas_unmap`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Unmap {
    pub(super) size: u32,
    pub(super) ioas_id: u32,
    pub(super) iova: u64,
    pub(super) length: u64,
}

/// `struct iommu_hwpt_alloc`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct HwptAlloc {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) dev_id: u32,
    pub(super) pt_id: u32,
    pub(super) out_hwpt_id: u32,
    pub(super) reserved: u32,
    pub(super) data_type: u32,
    pub(super) data_len: u32,
    pub(super) data_uptr: u64,
}

/// `struct iommu_hw_info`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct HwInfo {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) dev_id: u32,
    pub(super) data_len: u32,
    pub(super) data_uptr: u64,
    pub(super) out_data_type: u32,
    pub(super) out_max_pasid_log2: u8,
    pub(super) reserved: [u8; 3],
    pub(super) out_capabilities: u64,
}

/// `struct iommu_hwpt_set_dirty_tracking`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct SetDirtyTracking {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) hwpt_id: u32,
    pub(super) reserved: u32,
}

/// `struct iommu_hwpt_get_dirty_bitmap`
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct GetDirtyBitmap {
    pub(super) size: u32,
    pub(super) hwpt_id: u32,
    pub(super) flags: u32,
    pub(super) reserved: u32,
    pub(super) iova: u64,
    pub(super) length: u64,
    pub(super) page_size: u64,
    pub(super) data: u64,
}

/// Returns the value of a structure's `size` field.
pub(super) fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

// Sizes and offsets of Linux 7.3 on x86-64, from a C compiler. `iommu_hwpt_alloc` was this long when it was
// introduced (6.6); the kernel reads later fields as zero.
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Destroy>() == 8);
    assert!(size_of::<IoasAlloc>() == 12 && offset_of!(IoasAlloc, out_ioas_id) == 8);
    assert!(size_of::<IovaRange>() == 16 && offset_of!(IovaRange, last) == 8);
    assert!(size_of::<IovaRanges>() == 32 && offset_of!(IovaRanges, num_iovas) == 8);
    assert!(offset_of!(IovaRanges, allowed_iovas) == 16);
    assert!(offset_of!(IovaRanges, out_iova_alignment) == 24);
    assert!(size_of::<Map>() == 40 && offset_of!(Map, user_va) == 16);
    assert!(offset_of!(Map, length) == 24 && offset_of!(Map, iova) == 32);
    assert!(size_of::<MapFile>() == 40 && offset_of!(MapFile, fd) == 12);
    assert!(offset_of!(MapFile, start) == 16 && offset_of!(MapFile, iova) == 32);
    assert!(size_of::<Unmap>() == 24 && offset_of!(Unmap, length) == 16);
    assert!(size_of::<HwptAlloc>() == 40 && offset_of!(HwptAlloc, out_hwpt_id) == 16);
    assert!(offset_of!(HwptAlloc, data_uptr) == 32);
    assert!(size_of::<HwInfo>() == 40 && offset_of!(HwInfo, out_data_type) == 24);
    assert!(offset_of!(HwInfo, out_capabilities) == 32);
    assert!(size_of::<SetDirtyTracking>() == 16 && offset_of!(SetDirtyTracking, hwpt_id) == 8);
    assert!(size_of::<GetDirtyBitmap>() == 48 && offset_of!(GetDirtyBitmap, iova) == 16);
    assert!(offset_of!(GetDirtyBitmap, data) == 40);
};
