//! VFIO devices.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice, ClassInstance};
use napi_derive::napi;
use peerdma_core::vfio::{Device, IrqKind};

use crate::bytes::Bytes;
use crate::environment::finalize_handles;
use crate::error::{invalid, to_js};
use crate::event::NativeEventFd;
use crate::iommufd::{NativeIoas, NativeIommufd};
use crate::memory::NativeMemoryFile;
use crate::numbers::{Index, U64, range_words};
use crate::task::Work;

/// A region of a device.
#[napi(object, object_from_js = false)]
pub struct NativeRegionInfo<'env> {
    /// The length in bytes.
    #[napi(ts_type = "bigint")]
    pub length: U64,
    /// The offset in the device's memory file.
    #[napi(ts_type = "bigint")]
    pub file_offset: U64,
    /// Whether the region can be read.
    pub readable: bool,
    /// Whether the region can be written.
    pub writable: bool,
    /// The areas that can be mapped: pairs of offset in the region and length.
    pub mmap_areas: BigUint64ArraySlice<'env>,
    /// Whether the MSI-X table can be mapped too.
    pub msix_mappable: bool,
}

/// A PCI device opened through VFIO.
#[napi(custom_finalize)]
pub struct NativeVfioDevice {
    device: Device,
}

finalize_handles!(NativeVfioDevice);

impl NativeVfioDevice {
    pub(crate) const fn new(device: Device) -> Self {
        Self { device }
    }
}

#[napi]
impl NativeVfioDevice {
    /// Opens `/dev/vfio/devices/vfio<number>` and binds it to an iommufd, on a worker thread: waking and resetting a
    /// device is slow.
    #[napi(ts_return_type = "Promise<NativeVfioDevice>")]
    pub fn open_by_file_async(
        name: String,
        #[napi(ts_arg_type = "number")] number: Index,
        iommufd: &NativeIommufd,
    ) -> napi::Result<AsyncTask<Work<Device, Self>>> {
        let number = number.as_u32("device")?;
        let iommufd = iommufd.iommufd()?.clone();
        let open = move || Device::open_by_file(&name, number, &iommufd);
        Ok(Work::make(open, Self::new))
    }

    /// Attaches the device to an address space, on a worker thread: the kernel may pin the mapped memory.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn attach(&self, ioas: &NativeIoas) -> AsyncTask<Work> {
        let (device, ioas) = (self.device.clone(), ioas.ioas().clone());
        Work::run(move || device.attach(&ioas))
    }

    /// Detaches the device from its address space, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn detach(&self) -> AsyncTask<Work> {
        let device = self.device.clone();
        Work::run(move || device.detach())
    }

    /// Checks that the kernel can export its BARs as dma-bufs.
    #[napi]
    pub fn check_dma_bufs(&self) -> napi::Result<()> {
        self.device.check_dma_bufs().map_err(to_js)
    }

    /// The number of times that the dma-bufs of its BARs were revoked.
    #[napi(getter, ts_return_type = "number")]
    pub fn revocations(&self) -> Index {
        Index(self.device.revocations())
    }

    /// Returns the description of a region, or `null` if the device does not have it.
    #[napi]
    pub fn region_info<'env>(
        &self,
        env: &'env Env,
        #[napi(ts_arg_type = "number")] index: Index,
    ) -> napi::Result<Option<NativeRegionInfo<'env>>> {
        let Some(info) = self.device.region_info(index.as_u32("region")?) else {
            return Ok(None);
        };
        Ok(Some(NativeRegionInfo {
            length: U64(info.length),
            file_offset: U64(info.file_offset),
            readable: info.readable,
            writable: info.writable,
            mmap_areas: BigUint64ArraySlice::copy_from(env, range_words(&info.mmap_areas))?,
            msix_mappable: info.msix_mappable,
        }))
    }

    /// Fills `into` from `offset` of a region.
    #[napi]
    pub fn read_region(
        &self,
        #[napi(ts_arg_type = "number")] index: Index,
        #[napi(ts_arg_type = "bigint")] offset: U64,
        #[napi(ts_arg_type = "Uint8Array")] mut into: Bytes,
    ) -> napi::Result<()> {
        self.device
            .read_region(index.as_u32("region")?, offset.0, into.sink())
            .map_err(to_js)
    }

    /// Writes `from` at `offset` of a region.
    #[napi]
    pub fn write_region(
        &self,
        #[napi(ts_arg_type = "number")] index: Index,
        #[napi(ts_arg_type = "bigint")] offset: U64,
        #[napi(ts_arg_type = "Uint8Array")] from: Bytes,
    ) -> napi::Result<()> {
        self.device
            .write_region(index.as_u32("region")?, offset.0, from.source())
            .map_err(to_js)
    }

    /// As `writeRegion`, on a worker thread with a copy of the bytes: a write that resets or wakes a function is
    /// slow.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn write_region_async(
        &self,
        #[napi(ts_arg_type = "number")] index: Index,
        #[napi(ts_arg_type = "bigint")] offset: U64,
        #[napi(ts_arg_type = "Uint8Array")] from: Bytes,
    ) -> napi::Result<AsyncTask<Work>> {
        let index = index.as_u32("region")?;
        let (device, from) = (self.device.clone(), from.source().to_vec());
        Ok(Work::run(move || {
            device.write_region(index, offset.0, from.as_slice())
        }))
    }

    /// Reads 32 bits in one access.
    #[napi]
    pub fn read32(
        &self,
        #[napi(ts_arg_type = "number")] index: Index,
        #[napi(ts_arg_type = "bigint")] offset: U64,
    ) -> napi::Result<u32> {
        self.device
            .read32(index.as_u32("region")?, offset.0)
            .map_err(to_js)
    }

    /// Writes 32 bits in one access.
    #[napi]
    pub fn write32(
        &self,
        #[napi(ts_arg_type = "number")] index: Index,
        #[napi(ts_arg_type = "bigint")] offset: U64,
        #[napi(ts_arg_type = "number")] value: Index,
    ) -> napi::Result<()> {
        self.device
            .write32(index.as_u32("region")?, offset.0, value.as_u32("value")?)
            .map_err(to_js)
    }

    /// Reads 64 bits in one access.
    #[napi(ts_return_type = "bigint")]
    pub fn read64(
        &self,
        #[napi(ts_arg_type = "number")] index: Index,
        #[napi(ts_arg_type = "bigint")] offset: U64,
    ) -> napi::Result<U64> {
        self.device
            .read64(index.as_u32("region")?, offset.0)
            .map(U64)
            .map_err(to_js)
    }

    /// Writes 64 bits in one access.
    #[napi]
    pub fn write64(
        &self,
        #[napi(ts_arg_type = "number")] index: Index,
        #[napi(ts_arg_type = "bigint")] offset: U64,
        #[napi(ts_arg_type = "bigint")] value: U64,
    ) -> napi::Result<()> {
        self.device
            .write64(index.as_u32("region")?, offset.0, value.0)
            .map_err(to_js)
    }

    /// Whether the BARs are enabled.
    #[napi(getter)]
    pub fn memory_accessible(&self) -> bool {
        self.device.memory_accessible()
    }

    /// Returns the device's memory, to map in a reservation.
    #[napi]
    pub fn memory_file(&self) -> napi::Result<NativeMemoryFile> {
        self.device
            .memory_file()
            .map(NativeMemoryFile::new)
            .map_err(to_js)
    }

    /// Resets the device, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn reset(&self) -> AsyncTask<Work> {
        let device = self.device.clone();
        Work::run(move || device.reset())
    }

    /// Returns the number of vectors of a kind: 0 INTx, 1 MSI, 2 MSI-X, 3 error, 4 request.
    #[napi]
    pub fn irq_count(&self, #[napi(ts_arg_type = "number")] kind: Index) -> napi::Result<u32> {
        self.device.irq_count(irq_kind(kind)?).map_err(to_js)
    }

    /// Whether vectors can be added to the kind while it is connected.
    #[napi]
    pub fn irq_grows(&self, #[napi(ts_arg_type = "number")] kind: Index) -> napi::Result<bool> {
        self.device.irq_grows(irq_kind(kind)?).map_err(to_js)
    }

    /// Connects an eventfd to each vector from `start` on; `undefined` disconnects a vector.
    #[napi]
    pub fn connect_irqs(
        &self,
        #[napi(ts_arg_type = "number")] kind: Index,
        #[napi(ts_arg_type = "number")] start: Index,
        #[napi(ts_arg_type = "(NativeEventFd | undefined)[]")] events: Vec<
            Option<ClassInstance<'_, NativeEventFd>>,
        >,
    ) -> napi::Result<()> {
        let events = events
            .iter()
            .map(|event| event.as_ref().map(|event| event.event().cloned()))
            .map(Option::transpose)
            .collect::<napi::Result<Vec<_>>>()?;
        self.device
            .connect_irqs(irq_kind(kind)?, start.as_u32("vector")?, &events)
            .map_err(to_js)
    }

    /// Disconnects all vectors of a kind.
    #[napi]
    pub fn disconnect_irqs(&self, #[napi(ts_arg_type = "number")] kind: Index) -> napi::Result<()> {
        self.device.disconnect_irqs(irq_kind(kind)?).map_err(to_js)
    }

    /// Masks INTx.
    #[napi]
    pub fn mask_intx(&self) -> napi::Result<()> {
        self.device.mask_intx().map_err(to_js)
    }

    /// Unmasks INTx.
    #[napi]
    pub fn unmask_intx(&self) -> napi::Result<()> {
        self.device.unmask_intx().map_err(to_js)
    }

    /// Unmasks INTx whenever the eventfd is signalled; `undefined` stops that.
    #[napi]
    pub fn unmask_intx_on(&self, event: Option<&NativeEventFd>) -> napi::Result<()> {
        let event = event.map(NativeEventFd::event).transpose()?;
        self.device.unmask_intx_on(event).map_err(to_js)
    }

    /// Returns the PCI addresses of the devices that a hot reset affects.
    #[napi]
    pub fn hot_reset_info(&self) -> napi::Result<Vec<String>> {
        let devices = self.device.hot_reset_info().map_err(to_js)?;
        Ok(devices.into_iter().map(|device| device.address).collect())
    }

    /// Resets the bus or slot, on a worker thread. Includes the groups of the other open devices there.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn hot_reset(&self, others: Vec<ClassInstance<'_, NativeVfioDevice>>) -> AsyncTask<Work> {
        let device = self.device.clone();
        let others: Vec<Device> = others.iter().map(|other| other.device.clone()).collect();
        Work::run(move || device.hot_reset(&others))
    }

    /// Sets the UUID that opening a virtual function of this device requires from now on.
    #[napi]
    pub fn set_vf_token(&self, token: String) -> napi::Result<()> {
        self.device.set_vf_token(&token).map_err(to_js)
    }

    /// Closes the device; fails while its memory is mapped in a reservation.
    #[napi]
    pub fn close(&self) -> napi::Result<()> {
        self.device.close().map_err(to_js)
    }

    /// As `close`, on a worker thread: the kernel may reset the device.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_async(&self) -> AsyncTask<Work> {
        let device = self.device.clone();
        Work::run(move || device.close())
    }
}

fn irq_kind(index: Index) -> napi::Result<IrqKind> {
    usize::try_from(index.0)
        .ok()
        .and_then(|index| IrqKind::ALL.get(index).copied())
        .ok_or_else(|| invalid(format!("{} is not a kind of interrupts", index.0)))
}
