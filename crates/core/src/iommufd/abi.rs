//! The kernel's structures of iommufd (`include/uapi/linux/iommufd.h`), from `iommufd-bindings`.
//!
//! Each begins with its own size.

pub(super) use iommufd_bindings::{
    IOMMUFD_CMD_DESTROY, IOMMUFD_CMD_GET_HW_INFO, IOMMUFD_CMD_HWPT_ALLOC,
    IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP, IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING, IOMMUFD_CMD_IOAS_ALLOC,
    IOMMUFD_CMD_IOAS_IOVA_RANGES, IOMMUFD_CMD_IOAS_MAP, IOMMUFD_CMD_IOAS_MAP_FILE,
    IOMMUFD_CMD_IOAS_UNMAP, IOMMUFD_TYPE, iommu_destroy as Destroy, iommu_hw_info as HwInfo,
    iommu_hwpt_alloc as HwptAlloc, iommu_hwpt_get_dirty_bitmap as GetDirtyBitmap,
    iommu_hwpt_set_dirty_tracking as SetDirtyTracking, iommu_ioas_alloc as IoasAlloc,
    iommu_ioas_iova_ranges as IovaRanges, iommu_ioas_map as Map, iommu_ioas_map_file as MapFile,
    iommu_ioas_unmap as Unmap, iommu_iova_range as IovaRange,
    iommufd_hw_capabilities_IOMMU_HW_CAP_DIRTY_TRACKING as HW_CAP_DIRTY_TRACKING,
    iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING as HWPT_DIRTY_TRACKING,
    iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE as DIRTY_TRACKING_ENABLE,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA as MAP_FIXED_IOVA,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE as MAP_READABLE,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE as MAP_WRITEABLE,
};

/// Returns the value of a structure's `size` field.
pub(super) fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

// Sizes and offsets of Linux 7.3 on x86-64, from a C compiler. Linux before 6.11 has a shorter `iommu_hwpt_alloc`, and
// accepts this one because its last fields are zero (`copy_struct_from_user`).
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
    assert!(size_of::<HwptAlloc>() == 48 && offset_of!(HwptAlloc, out_hwpt_id) == 16);
    assert!(offset_of!(HwptAlloc, data_uptr) == 32);
    assert!(size_of::<HwInfo>() == 40 && offset_of!(HwInfo, data_uptr) == 16);
    assert!(offset_of!(HwInfo, out_capabilities) == 32);
    assert!(size_of::<SetDirtyTracking>() == 16 && offset_of!(SetDirtyTracking, hwpt_id) == 8);
    assert!(size_of::<GetDirtyBitmap>() == 48 && offset_of!(GetDirtyBitmap, iova) == 16);
    assert!(offset_of!(GetDirtyBitmap, data) == 40);
};
