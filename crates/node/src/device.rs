//! VFIO devices.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, ClassInstance};
use napi_derive::napi;
use peerdma_core::vfio::{Device, IrqKind};
use peerdma_core::{Descriptor, Result};

use crate::bytes::Bytes;
use crate::environment::finalize_handles;
use crate::error::{invalid, or_throw};
use crate::event::NativeEventFd;
use crate::iommufd::{NativeIoas, NativeIommufd};
use crate::memory::NativeMemoryFile;
use crate::numbers::{Fd, Index, U64, Words};
use crate::task::Work;

/// A region of a device.
#[napi(object, object_from_js = false)]
pub struct NativeRegionInfo {
    /// The length in bytes.
    pub length: U64,
    /// The offset in the device's memory file.
    pub file_offset: U64,
    /// Whether the region can be read.
    pub readable: bool,
    /// Whether the region can be written.
    pub writable: bool,
    /// The areas that can be mapped: pairs of offset in the region and length.
    pub mmap_areas: Words,
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

    pub(crate) const fn device(&self) -> &Device {
        &self.device
    }
}

#[napi]
impl NativeVfioDevice {
    /// Opens `/dev/vfio/devices/vfio<number>` and binds it to an iommufd. Runs on a worker thread, since waking and
    /// resetting a device is slow.
    #[napi(ts_return_type = "Promise<NativeVfioDevice>")]
    pub fn open_by_file_async(
        env: &Env,
        name: String,
        number: Index,
        iommufd: &NativeIommufd,
    ) -> napi::Result<AsyncTask<Work<Device, Self>>> {
        or_throw(env, || {
            let number = number.as_u32("device")?;
            let iommufd = iommufd.iommufd()?.clone();
            let open = move || Device::open_by_file(&name, number, &iommufd);
            Ok(Work::make(open, Self::new))
        })
    }

    /// Duplicates the descriptor of a device's file and binds it to an iommufd, on a worker thread. The caller still
    /// owns the original.
    #[napi(ts_return_type = "Promise<NativeVfioDevice>")]
    pub fn from_fd_async(
        env: &Env,
        name: String,
        fd: Fd,
        iommufd: &NativeIommufd,
    ) -> napi::Result<AsyncTask<Work<Device, Self>>> {
        or_throw(env, || {
            let descriptor = Descriptor::duplicate(fd.0)?;
            let iommufd = iommufd.iommufd()?.clone();
            let bind = move || Device::from_descriptor(&name, descriptor, &iommufd);
            Ok(Work::make(bind, Self::new))
        })
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
    pub fn check_dma_bufs(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.device.check_dma_bufs())
    }

    /// The number of times that the dma-bufs of its BARs were revoked.
    #[napi(getter)]
    pub fn revocations(&self) -> Index {
        Index(self.device.revocations())
    }

    /// Returns the description of a region, or `null` if the device does not have it.
    #[napi]
    pub fn region_info(&self, env: &Env, index: Index) -> napi::Result<Option<NativeRegionInfo>> {
        let index = or_throw(env, || index.as_u32("region"))?;
        Ok(self.device.region_info(index).map(|info| NativeRegionInfo {
            length: U64(info.length),
            file_offset: U64(info.file_offset),
            readable: info.readable,
            writable: info.writable,
            mmap_areas: Words::from_ranges(&info.mmap_areas),
            msix_mappable: info.msix_mappable,
        }))
    }

    /// Fills `into` from `offset` of a region.
    #[napi]
    pub fn read_region(
        &self,
        env: &Env,
        index: Index,
        offset: U64,
        mut into: Bytes,
    ) -> napi::Result<()> {
        or_throw(env, || {
            self.device
                .read_region(index.as_u32("region")?, offset.0, into.sink())
        })
    }

    /// Writes `from` at `offset` of a region.
    #[napi]
    pub fn write_region(
        &self,
        env: &Env,
        index: Index,
        offset: U64,
        from: Bytes,
    ) -> napi::Result<()> {
        or_throw(env, || {
            self.device
                .write_region(index.as_u32("region")?, offset.0, from.source())
        })
    }

    /// As `writeRegion`, on a worker thread with a copy of the bytes. A write that resets or wakes a function is slow.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn write_region_async(
        &self,
        env: &Env,
        index: Index,
        offset: U64,
        from: Bytes,
    ) -> napi::Result<AsyncTask<Work>> {
        or_throw(env, || {
            let index = index.as_u32("region")?;
            let (device, from) = (self.device.clone(), from.source().to_vec());
            Ok(Work::run(move || {
                device.write_region(index, offset.0, from.as_slice())
            }))
        })
    }

    /// Reads 32 bits in one access.
    #[napi]
    pub fn read32(&self, env: &Env, index: Index, offset: U64) -> napi::Result<u32> {
        or_throw(env, || {
            self.device.read32(index.as_u32("region")?, offset.0)
        })
    }

    /// Writes 32 bits in one access.
    #[napi]
    pub fn write32(&self, env: &Env, index: Index, offset: U64, value: Index) -> napi::Result<()> {
        or_throw(env, || {
            self.device
                .write32(index.as_u32("region")?, offset.0, value.as_u32("value")?)
        })
    }

    /// Reads 64 bits in one access.
    #[napi]
    pub fn read64(&self, env: &Env, index: Index, offset: U64) -> napi::Result<U64> {
        or_throw(env, || {
            self.device
                .read64(index.as_u32("region")?, offset.0)
                .map(U64)
        })
    }

    /// Writes 64 bits in one access.
    #[napi]
    pub fn write64(&self, env: &Env, index: Index, offset: U64, value: U64) -> napi::Result<()> {
        or_throw(env, || {
            self.device
                .write64(index.as_u32("region")?, offset.0, value.0)
        })
    }

    /// Whether the BARs are enabled.
    #[napi(getter)]
    pub fn memory_accessible(&self) -> bool {
        self.device.memory_accessible()
    }

    /// Returns the device's memory, to map in a reservation.
    #[napi]
    pub fn memory_file(&self, env: &Env) -> napi::Result<NativeMemoryFile> {
        or_throw(env, || self.device.memory_file().map(NativeMemoryFile::new))
    }

    /// Resets the device, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn reset(&self) -> AsyncTask<Work> {
        let device = self.device.clone();
        Work::run(move || device.reset())
    }

    /// Returns the number of vectors of a kind: 0 INTx, 1 MSI, 2 MSI-X, 3 error, 4 request.
    #[napi]
    pub fn irq_count(&self, env: &Env, kind: Index) -> napi::Result<u32> {
        or_throw(env, || self.device.irq_count(irq_kind(kind)?))
    }

    /// Whether vectors can be added to the kind while it is connected.
    #[napi]
    pub fn irq_grows(&self, env: &Env, kind: Index) -> napi::Result<bool> {
        or_throw(env, || self.device.irq_grows(irq_kind(kind)?))
    }

    /// Connects an eventfd to each vector from `start` on; `undefined` disconnects a vector.
    #[napi]
    pub fn connect_irqs(
        &self,
        env: &Env,
        kind: Index,
        start: Index,
        #[napi(ts_arg_type = "(NativeEventFd | undefined)[]")] events: Vec<
            Option<ClassInstance<'_, NativeEventFd>>,
        >,
    ) -> napi::Result<()> {
        or_throw(env, || {
            let events = events
                .iter()
                .map(|event| event.as_ref().map(|event| event.event().cloned()))
                .map(Option::transpose)
                .collect::<Result<Vec<_>>>()?;
            self.device
                .connect_irqs(irq_kind(kind)?, start.as_u32("vector")?, &events)
        })
    }

    /// Disconnects all vectors of a kind.
    #[napi]
    pub fn disconnect_irqs(&self, env: &Env, kind: Index) -> napi::Result<()> {
        or_throw(env, || self.device.disconnect_irqs(irq_kind(kind)?))
    }

    /// Masks INTx.
    #[napi]
    pub fn mask_intx(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.device.mask_intx())
    }

    /// Unmasks INTx.
    #[napi]
    pub fn unmask_intx(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.device.unmask_intx())
    }

    /// Unmasks INTx whenever the eventfd is signalled; `undefined` stops that.
    #[napi]
    pub fn unmask_intx_on(&self, env: &Env, event: Option<&NativeEventFd>) -> napi::Result<()> {
        or_throw(env, || {
            let event = event.map(NativeEventFd::event).transpose()?;
            self.device.unmask_intx_on(event)
        })
    }

    /// Returns the PCI addresses of the devices that a hot reset affects.
    #[napi]
    pub fn hot_reset_info(&self, env: &Env) -> napi::Result<Vec<String>> {
        or_throw(env, || {
            let devices = self.device.hot_reset_info()?;
            Ok(devices.into_iter().map(|device| device.address).collect())
        })
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
    pub fn set_vf_token(&self, env: &Env, token: String) -> napi::Result<()> {
        or_throw(env, || self.device.set_vf_token(&token))
    }

    /// Closes the device; fails while its memory is mapped in a reservation.
    #[napi]
    pub fn close(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || self.device.close())
    }

    /// As `close`, on a worker thread: the kernel may reset the device.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_async(&self) -> AsyncTask<Work> {
        let device = self.device.clone();
        Work::run(move || device.close())
    }
}

fn irq_kind(index: Index) -> Result<IrqKind> {
    usize::try_from(index.0)
        .ok()
        .and_then(|index| IrqKind::ALL.get(index).copied())
        .ok_or_else(|| invalid(format!("{} is not a kind of interrupts", index.0)))
}
