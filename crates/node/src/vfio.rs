//! VFIO containers and groups.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice, ClassInstance};
use napi_derive::napi;
use peerdma_core::vfio::{Container, Device, Group};
use peerdma_core::{Descriptor, Range};

use crate::batch::{
    MapTask, NativeFailure, NativeMapFailure, UnmapTask, failures, map_failure, read_batch,
    read_ranges,
};
use crate::device::NativeVfioDevice;
use crate::environment::finalize_handles;
use crate::error::or_throw;
use crate::memory::NativeMemoryFile;
use crate::numbers::{Fd, Index, U64, Words};
use crate::reservation::NativeReservation;
use crate::space::space_methods;
use crate::task::Work;

/// The present capabilities of an IOMMU.
#[napi(object, object_from_js = false)]
pub struct NativeContainerInfo {
    /// A bit for each page size.
    pub page_sizes: U64,
    /// Pairs of start and length.
    pub iova_ranges: Words,
    /// The number of mappings it can still make, if the kernel reports it.
    pub dma_avail: Option<u32>,
}

/// A VFIO container: an IOMMU address space.
#[napi(custom_finalize)]
pub struct NativeVfioContainer {
    space: Container,
}

finalize_handles!(NativeVfioContainer, NativeVfioGroup);

#[napi]
impl NativeVfioContainer {
    /// Opens `/dev/vfio/vfio`.
    #[napi(factory)]
    pub fn open(env: &Env) -> napi::Result<Self> {
        or_throw(env, || Container::open().map(|space| Self { space }))
    }

    /// Duplicates the descriptor of a container without an IOMMU; the caller still owns the original.
    #[napi(factory)]
    pub fn from_fd(env: &Env, fd: Fd) -> napi::Result<Self> {
        or_throw(env, || {
            let descriptor = Descriptor::duplicate(fd.0)?;
            Container::from_descriptor(descriptor).map(|space| Self { space })
        })
    }

    /// Sets the IOMMU type to type1v2, after the first group was attached, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn set_iommu_async(&self) -> AsyncTask<Work> {
        let container = self.space.clone();
        Work::run(move || container.set_iommu())
    }

    /// Returns the present capabilities of the IOMMU.
    #[napi]
    pub fn info(&self, env: &Env) -> napi::Result<NativeContainerInfo> {
        or_throw(env, || {
            let info = self.space.info()?;
            Ok(NativeContainerInfo {
                page_sizes: U64(info.page_sizes),
                iova_ranges: Words::from_ranges(&info.iova_ranges),
                dma_avail: info.dma_avail,
            })
        })
    }
}

space_methods!(NativeVfioContainer);

/// Devices that the IOMMU cannot isolate from each other.
#[napi(custom_finalize)]
pub struct NativeVfioGroup {
    group: Group,
}

#[napi]
impl NativeVfioGroup {
    /// Opens `/dev/vfio/<id>`.
    #[napi(factory)]
    pub fn open(env: &Env, id: Index) -> napi::Result<Self> {
        or_throw(env, || {
            Group::open(id.as_u32("group")?).map(|group| Self { group })
        })
    }

    /// Duplicates the descriptor of the group `id`; the caller still owns the original.
    #[napi(factory)]
    pub fn from_fd(env: &Env, fd: Fd, id: Index) -> napi::Result<Self> {
        or_throw(env, || {
            let descriptor = Descriptor::duplicate(fd.0)?;
            Group::from_descriptor(descriptor, id.as_u32("group")?).map(|group| Self { group })
        })
    }

    /// Whether all its devices are bound to VFIO drivers or to none.
    #[napi]
    pub fn viable(&self, env: &Env) -> napi::Result<bool> {
        or_throw(env, || self.group.viable())
    }

    /// Attaches the group to a container, on a worker thread. If the group has another IOMMU, the kernel makes all
    /// mappings for it.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn attach_async(&self, container: &NativeVfioContainer) -> AsyncTask<Work> {
        let (group, container) = (self.group.clone(), container.space.clone());
        Work::run(move || group.attach(&container))
    }

    /// Opens a device by its PCI address, on a worker thread: the kernel may wake the device and reset it.
    #[napi(ts_return_type = "Promise<NativeVfioDevice>")]
    pub fn open_device_async(&self, bdf: String) -> AsyncTask<Work<Device, NativeVfioDevice>> {
        let group = self.group.clone();
        Work::make(move || group.open_device(&bdf), NativeVfioDevice::new)
    }

    /// Detaches and closes the group; fails while devices are open.
    #[napi]
    pub fn close(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.group.close())
    }

    /// As `close`, on a worker thread: detaching the last group of a container removes all of its mappings.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_async(&self) -> AsyncTask<Work> {
        let group = self.group.clone();
        Work::run(move || group.close())
    }
}
