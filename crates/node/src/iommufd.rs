//! iommufd and its address spaces.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice, ClassInstance};
use napi_derive::napi;
use peerdma_core::Range;
use peerdma_core::iommufd::{Ioas, Iommufd};

use crate::batch::{Failing, NativeFailure, failures, mapped, read_batch, read_ranges};
use crate::environment::finalize_handles;
use crate::error::{closed, to_js};
use crate::memory::NativeMemoryFile;
use crate::numbers::{Index, U64, Words};
use crate::reservation::NativeReservation;
use crate::task::Work;

/// An open `/dev/iommu`.
#[napi(custom_finalize)]
pub struct NativeIommufd {
    iommufd: Option<Iommufd>,
}

finalize_handles!(NativeIommufd, NativeIoas);

impl NativeIommufd {
    pub(crate) fn iommufd(&self) -> napi::Result<&Iommufd> {
        self.iommufd.as_ref().ok_or_else(|| closed("iommufd"))
    }
}

#[napi]
impl NativeIommufd {
    /// Opens `/dev/iommu`.
    #[napi(factory)]
    pub fn open() -> napi::Result<Self> {
        Iommufd::open()
            .map(|iommufd| Self {
                iommufd: Some(iommufd),
            })
            .map_err(to_js)
    }

    /// Whether the kernel maps files.
    #[napi(getter)]
    pub fn maps_files(&self) -> napi::Result<bool> {
        Ok(self.iommufd()?.maps_files())
    }

    /// Makes an empty address space.
    #[napi]
    pub fn new_ioas(&self) -> napi::Result<NativeIoas> {
        Ioas::new(self.iommufd()?)
            .map(|ioas| NativeIoas { ioas })
            .map_err(to_js)
    }

    /// Gives the handle up. Address spaces and devices keep it open.
    #[napi]
    pub fn close(&mut self) {
        self.iommufd = None;
    }
}

/// What an address space can do, as of now.
#[napi(object, object_from_js = false)]
pub struct NativeIoasInfo<'env> {
    /// What both ends of a mapping must be multiples of.
    #[napi(ts_type = "bigint")]
    pub alignment: U64,
    /// Pairs of start and length.
    pub iova_ranges: BigUint64ArraySlice<'env>,
}

/// An address space of iommufd.
#[napi(custom_finalize)]
pub struct NativeIoas {
    ioas: Ioas,
}

impl NativeIoas {
    pub(crate) const fn ioas(&self) -> &Ioas {
        &self.ioas
    }
}

#[napi]
impl NativeIoas {
    /// What it can do now.
    #[napi]
    pub fn info<'env>(&self, env: &'env Env) -> napi::Result<NativeIoasInfo<'env>> {
        let info = self.ioas.info().map_err(to_js)?;
        let ranges: Vec<u64> = info
            .iova_ranges
            .iter()
            .flat_map(|range| [range.start(), range.len()])
            .collect();
        Ok(NativeIoasInfo {
            alignment: U64(info.alignment),
            iova_ranges: BigUint64ArraySlice::copy_from(env, ranges)?,
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
        Ok(mapped(self.ioas.map(batch)))
    }

    /// The same on a worker thread.
    #[napi(ts_return_type = "Promise<Array<NativeFailure>>")]
    pub fn map_async(
        &self,
        reservation: Option<&NativeReservation>,
        files: Vec<ClassInstance<'_, NativeMemoryFile>>,
        requests: BigUint64ArraySlice<'_>,
    ) -> napi::Result<AsyncTask<Failing>> {
        let ioas = self.ioas.clone();
        let batch = read_batch(reservation, &files, &requests)?;
        let map = move || Ok(mapped(ioas.map(batch)));
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
        Ok(failures(self.ioas.unmap(&read_ranges(&ranges)?, all)))
    }

    /// The same on a worker thread.
    #[napi(ts_return_type = "Promise<Array<NativeFailure>>")]
    pub fn unmap_async(
        &self,
        ranges: BigUint64ArraySlice<'_>,
        all: bool,
    ) -> napi::Result<AsyncTask<Failing>> {
        let ioas = self.ioas.clone();
        let ranges = read_ranges(&ranges)?;
        Ok(Work::make(
            move || Ok(failures(ioas.unmap(&ranges, all))),
            std::convert::identity,
        ))
    }

    /// Removes all mappings.
    #[napi]
    pub fn unmap_all(&self) -> napi::Result<()> {
        self.ioas.unmap_all().map_err(to_js)
    }

    /// How many mappings are on record.
    #[napi(getter, ts_return_type = "number")]
    pub fn mapping_count(&self) -> Index {
        Index(u64::try_from(self.ioas.mapping_count()).unwrap_or(u64::MAX))
    }

    /// How many devices are attached.
    #[napi(getter, ts_return_type = "number")]
    pub fn device_count(&self) -> Index {
        Index(u64::try_from(self.ioas.device_count()).unwrap_or(u64::MAX))
    }

    /// Starts or ends logging which pages devices write, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn set_dirty_tracking(&self, on: bool) -> AsyncTask<Work> {
        let ioas = self.ioas.clone();
        Work::run(move || ioas.set_dirty_tracking(on))
    }

    /// A bit for each page, set where a device has written it since the last call. Read on a worker thread.
    #[napi(ts_return_type = "Promise<BigUint64Array>")]
    pub fn dirty_pages(
        &self,
        #[napi(ts_arg_type = "bigint")] iova: U64,
        #[napi(ts_arg_type = "bigint")] length: U64,
        #[napi(ts_arg_type = "bigint")] page_size: U64,
    ) -> napi::Result<AsyncTask<Work<Vec<u64>, Words>>> {
        let range = Range::new(iova.0, length.0).map_err(to_js)?;
        let ioas = self.ioas.clone();
        let read = move || ioas.dirty_pages(&range, page_size.0);
        Ok(Work::make(read, Words))
    }

    /// Destroys it; refuses while devices are attached.
    #[napi]
    pub fn close(&self) -> napi::Result<()> {
        self.ioas.close().map_err(to_js)
    }

    /// The same on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_async(&self) -> AsyncTask<Work> {
        let ioas = self.ioas.clone();
        Work::run(move || ioas.close())
    }
}
