//! VFIO containers and groups.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice, ClassInstance};
use napi_derive::napi;
use peerdma_core::Range;
use peerdma_core::vfio::{Container, Device, Group};

use crate::batch::{Failing, NativeFailure, failures, mapped, read_batch, read_ranges};
use crate::device::NativeVfioDevice;
use crate::environment::finalize_handles;
use crate::error::to_js;
use crate::memory::NativeMemoryFile;
use crate::numbers::{Index, U64, Words};
use crate::reservation::NativeReservation;
use crate::space::space_methods;
use crate::task::Work;

/// What an IOMMU can do, as of now.
#[napi(object, object_from_js = false)]
pub struct NativeContainerInfo<'env> {
    /// A bit for each page size.
    #[napi(ts_type = "bigint")]
    pub page_sizes: U64,
    /// Pairs of start and length.
    pub iova_ranges: BigUint64ArraySlice<'env>,
    /// How many more mappings it takes, where the kernel says.
    pub dma_avail: Option<u32>,
}

/// An IOMMU address space of VFIO.
#[napi(custom_finalize)]
pub struct NativeVfioContainer {
    space: Container,
}

finalize_handles!(NativeVfioContainer, NativeVfioGroup);

#[napi]
impl NativeVfioContainer {
    /// Opens `/dev/vfio/vfio`.
    #[napi(factory)]
    pub fn open() -> napi::Result<Self> {
        Container::open().map(|space| Self { space }).map_err(to_js)
    }

    /// Gives it a type1v2 IOMMU, after its first group was attached, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn set_iommu_async(&self) -> AsyncTask<Work> {
        let container = self.space.clone();
        Work::run(move || container.set_iommu())
    }

    /// What the IOMMU can do now.
    #[napi]
    pub fn info<'env>(&self, env: &'env Env) -> napi::Result<NativeContainerInfo<'env>> {
        let info = self.space.info().map_err(to_js)?;
        let ranges: Vec<u64> = info
            .iova_ranges
            .iter()
            .flat_map(|range| [range.start(), range.len()])
            .collect();
        Ok(NativeContainerInfo {
            page_sizes: U64(info.page_sizes),
            iova_ranges: BigUint64ArraySlice::copy_from(env, ranges)?,
            dma_avail: info.dma_avail,
        })
    }
}

space_methods!(NativeVfioContainer);

/// Devices that the IOMMU can't tell apart.
#[napi(custom_finalize)]
pub struct NativeVfioGroup {
    group: Group,
}

#[napi]
impl NativeVfioGroup {
    /// Opens `/dev/vfio/<id>`.
    #[napi(factory)]
    pub fn open(#[napi(ts_arg_type = "number")] id: Index) -> napi::Result<Self> {
        Group::open(id.as_u32("group")?)
            .map(|group| Self { group })
            .map_err(to_js)
    }

    /// Whether all its devices are VFIO's.
    #[napi]
    pub fn viable(&self) -> napi::Result<bool> {
        self.group.viable().map_err(to_js)
    }

    /// Attaches it to a container, on a worker thread: where the group's IOMMU differs, all that is mapped there is
    /// mapped for it.
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

    /// Detaches and closes it; refuses while devices are open.
    #[napi]
    pub fn close(&self) -> napi::Result<()> {
        self.group.close().map_err(to_js)
    }

    /// The same on a worker thread: with the last group of a container all of its mappings go.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_async(&self) -> AsyncTask<Work> {
        let group = self.group.clone();
        Work::run(move || group.close())
    }
}
