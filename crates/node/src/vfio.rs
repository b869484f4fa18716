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
    container: Container,
}

finalize_handles!(NativeVfioContainer, NativeVfioGroup);

#[napi]
impl NativeVfioContainer {
    /// Opens `/dev/vfio/vfio`.
    #[napi(factory)]
    pub fn open() -> napi::Result<Self> {
        Container::open()
            .map(|container| Self { container })
            .map_err(to_js)
    }

    /// Gives it a type1v2 IOMMU, after its first group was attached.
    #[napi]
    pub fn set_iommu(&self) -> napi::Result<()> {
        self.container.set_iommu().map_err(to_js)
    }

    /// The same on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn set_iommu_async(&self) -> AsyncTask<Work> {
        let container = self.container.clone();
        Work::run(move || container.set_iommu())
    }

    /// What the IOMMU can do now.
    #[napi]
    pub fn info<'env>(&self, env: &'env Env) -> napi::Result<NativeContainerInfo<'env>> {
        let info = self.container.info().map_err(to_js)?;
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

    /// Makes mappings, all or none. A request is four words: IOVA, length, flags (bit 0: writable; bit 1: a file, which
    /// of `files` from bit 32 on; bit 2: faulted in before), and the offset in the reservation or the file. Returns
    /// what could not be mapped, and after it what was mapped before it and could not be unmapped again.
    #[napi]
    pub fn map(
        &self,
        reservation: Option<&NativeReservation>,
        files: Vec<ClassInstance<'_, NativeMemoryFile>>,
        requests: BigUint64ArraySlice<'_>,
    ) -> napi::Result<Vec<NativeFailure>> {
        let batch = read_batch(reservation, &files, &requests)?;
        Ok(mapped(self.container.map(batch)))
    }

    /// The same on a worker thread.
    #[napi(ts_return_type = "Promise<Array<NativeFailure>>")]
    pub fn map_async(
        &self,
        reservation: Option<&NativeReservation>,
        files: Vec<ClassInstance<'_, NativeMemoryFile>>,
        requests: BigUint64ArraySlice<'_>,
    ) -> napi::Result<AsyncTask<Failing>> {
        let container = self.container.clone();
        let batch = read_batch(reservation, &files, &requests)?;
        let map = move || Ok(mapped(container.map(batch)));
        Ok(Work::make(map, std::convert::identity))
    }

    /// Removes the mappings that lie wholly in ranges, pairs of start and length, one after another. Returns which of
    /// the ranges failed; without `all` it stops at the first.
    #[napi]
    pub fn unmap(
        &self,
        ranges: BigUint64ArraySlice<'_>,
        all: bool,
    ) -> napi::Result<Vec<NativeFailure>> {
        Ok(failures(self.container.unmap(&read_ranges(&ranges)?, all)))
    }

    /// The same on a worker thread.
    #[napi(ts_return_type = "Promise<Array<NativeFailure>>")]
    pub fn unmap_async(
        &self,
        ranges: BigUint64ArraySlice<'_>,
        all: bool,
    ) -> napi::Result<AsyncTask<Failing>> {
        let container = self.container.clone();
        let ranges = read_ranges(&ranges)?;
        Ok(Work::make(
            move || Ok(failures(container.unmap(&ranges, all))),
            std::convert::identity,
        ))
    }

    /// Removes all mappings.
    #[napi]
    pub fn unmap_all(&self) -> napi::Result<()> {
        self.container.unmap_all().map_err(to_js)
    }

    /// How many mappings are on record.
    #[napi(getter, ts_return_type = "number")]
    pub fn mapping_count(&self) -> Index {
        Index(u64::try_from(self.container.mapping_count()).unwrap_or(u64::MAX))
    }

    /// Starts or ends logging which pages devices may have written, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn set_dirty_tracking(&self, on: bool) -> AsyncTask<Work> {
        let container = self.container.clone();
        Work::run(move || container.set_dirty_tracking(on))
    }

    /// A bit for each page, set where a device may have written it since the last call. Read on a worker thread.
    #[napi(ts_return_type = "Promise<BigUint64Array>")]
    pub fn dirty_pages(
        &self,
        #[napi(ts_arg_type = "bigint")] iova: U64,
        #[napi(ts_arg_type = "bigint")] length: U64,
        #[napi(ts_arg_type = "bigint")] page_size: U64,
    ) -> napi::Result<AsyncTask<Work<Vec<u64>, Words>>> {
        let range = Range::new(iova.0, length.0).map_err(to_js)?;
        let container = self.container.clone();
        let read = move || container.dirty_pages(&range, page_size.0);
        Ok(Work::make(read, Words))
    }

    /// Closes it; refuses while groups are attached.
    #[napi]
    pub fn close(&self) -> napi::Result<()> {
        self.container.close().map_err(to_js)
    }

    /// The same on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_async(&self) -> AsyncTask<Work> {
        let container = self.container.clone();
        Work::run(move || container.close())
    }
}

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

    /// Attaches it to a container.
    #[napi]
    pub fn attach(&self, container: &NativeVfioContainer) -> napi::Result<()> {
        self.group.attach(&container.container).map_err(to_js)
    }

    /// The same on a worker thread: where the group's IOMMU differs, all that is mapped there is mapped for it.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn attach_async(&self, container: &NativeVfioContainer) -> AsyncTask<Work> {
        let (group, container) = (self.group.clone(), container.container.clone());
        Work::run(move || group.attach(&container))
    }

    /// Opens a device by its PCI address.
    #[napi]
    pub fn open_device(&self, bdf: String) -> napi::Result<NativeVfioDevice> {
        self.group
            .open_device(&bdf)
            .map(NativeVfioDevice::new)
            .map_err(to_js)
    }

    /// The same on a worker thread: the kernel may wake the device and reset it.
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
