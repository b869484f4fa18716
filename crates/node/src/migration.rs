//! Migration of VFIO devices.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice};
use napi_derive::napi;
use peerdma_core::Range;
use peerdma_core::vfio::MigrationState;

use crate::batch::read_ranges;
use crate::bytes::{Bytes, NewBytes};
use crate::device::NativeVfioDevice;
use crate::error::{invalid, or_throw};
use crate::numbers::{Index, U64, Words};
use crate::task::Work;

/// The migration features of a device.
#[napi(object, object_from_js = false)]
pub struct NativeMigrationSupport {
    /// Whether it can stop DMA to other devices and still accept theirs.
    pub peer_to_peer: bool,
    /// Whether it transfers data while it runs.
    pub pre_copy: bool,
    /// Whether it has a log of its DMA writes.
    pub dma_log: bool,
}

/// The data that can be read before a device is stopped, in bytes.
#[napi(object, object_from_js = false)]
pub struct NativePreCopyInfo {
    /// Initial data.
    pub initial: U64,
    /// Changes of data that was read.
    pub dirty: U64,
}

#[napi]
impl NativeVfioDevice {
    /// Returns the migration features, or `null` if the device cannot migrate.
    #[napi]
    pub fn migration_support(&self, env: &Env) -> napi::Result<Option<NativeMigrationSupport>> {
        or_throw(env, || {
            let Some(support) = self.device().migration_support()? else {
                return Ok(None);
            };
            Ok(Some(NativeMigrationSupport {
                peer_to_peer: support.peer_to_peer,
                pre_copy: support.pre_copy,
                dma_log: self.device().has_dma_log()?,
            }))
        })
    }

    /// Returns the kernel's number of the migration state.
    #[napi]
    pub fn migration_state(&self, env: &Env) -> napi::Result<u32> {
        or_throw(env, || {
            self.device().migration_state().map(MigrationState::number)
        })
    }

    /// Changes the migration state, on a worker thread: the device completes its DMA first.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn set_migration_state(&self, env: &Env, number: Index) -> napi::Result<AsyncTask<Work>> {
        or_throw(env, || {
            let state = MigrationState::from_number(number.as_u32("state")?)
                .ok_or_else(|| invalid(format!("{} is not a migration state", number.0)))?;
            let device = self.device().clone();
            Ok(Work::run(move || device.set_migration_state(state)))
        })
    }

    /// Returns the estimated bytes of data that the device transfers when it is stopped.
    #[napi]
    pub fn migration_data_size(&self, env: &Env) -> napi::Result<U64> {
        or_throw(env, || self.device().migration_data_size().map(U64))
    }

    /// Returns how much data can be read before the device is stopped.
    #[napi]
    pub fn precopy_info(&self, env: &Env) -> napi::Result<NativePreCopyInfo> {
        or_throw(env, || {
            let info = self.device().precopy_info()?;
            Ok(NativePreCopyInfo {
                initial: U64(info.initial),
                dirty: U64(info.dirty),
            })
        })
    }

    /// Returns the next migration data, of no bytes at its end. Reads on a worker thread.
    #[napi(ts_return_type = "Promise<Uint8Array>")]
    pub fn read_migration(
        &self,
        env: &Env,
        limit: Index,
    ) -> napi::Result<AsyncTask<Work<Vec<u8>, NewBytes>>> {
        or_throw(env, || {
            let limit = usize::try_from(limit.as_u32("limit")?).unwrap_or(usize::MAX);
            let device = self.device().clone();
            Ok(Work::make(move || device.read_migration(limit), NewBytes))
        })
    }

    /// Writes migration data, on a worker thread with a copy of the bytes.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn write_migration(&self, from: Bytes) -> AsyncTask<Work> {
        let (device, from) = (self.device().clone(), from.source().to_vec());
        Work::run(move || device.write_migration(&from))
    }

    /// Starts the device's log of DMA writes to ranges, pairs of start and length, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn start_dma_log(
        &self,
        env: &Env,
        ranges: BigUint64ArraySlice<'_>,
        page_size: U64,
    ) -> napi::Result<AsyncTask<Work>> {
        or_throw(env, || {
            let (device, ranges) = (self.device().clone(), read_ranges(&ranges)?);
            Ok(Work::run(move || {
                device.start_dma_log(&ranges, page_size.0)
            }))
        })
    }

    /// Stops the device's log of DMA writes, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn stop_dma_log(&self) -> AsyncTask<Work> {
        let device = self.device().clone();
        Work::run(move || device.stop_dma_log())
    }

    /// Returns a bit for each page, set if the device may have written it since the last call. Reads the log on a
    /// worker thread.
    #[napi(ts_return_type = "Promise<BigUint64Array>")]
    pub fn read_dma_log(
        &self,
        env: &Env,
        iova: U64,
        length: U64,
        page_size: U64,
    ) -> napi::Result<AsyncTask<Work<Vec<u64>, Words>>> {
        or_throw(env, || {
            let range = Range::new(iova.0, length.0)?;
            let device = self.device().clone();
            let read = move || device.read_dma_log(&range, page_size.0);
            Ok(Work::make(read, Words))
        })
    }
}
