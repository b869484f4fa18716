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
use crate::numbers::{Index, U64, Words, range_words};
use crate::reservation::NativeReservation;
use crate::space::space_methods;
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

    /// Creates an empty address space.
    #[napi]
    pub fn new_ioas(&self) -> napi::Result<NativeIoas> {
        Ioas::new(self.iommufd()?)
            .map(|space| NativeIoas { space })
            .map_err(to_js)
    }

    /// Closes the handle. Address spaces and devices keep the iommufd open.
    #[napi]
    pub fn close(&mut self) {
        self.iommufd = None;
    }
}

/// The present capabilities of an address space.
#[napi(object, object_from_js = false)]
pub struct NativeIoasInfo<'env> {
    /// The alignment of both ends of a mapping, in bytes.
    #[napi(ts_type = "bigint")]
    pub alignment: U64,
    /// Pairs of start and length.
    pub iova_ranges: BigUint64ArraySlice<'env>,
}

/// An address space of iommufd.
#[napi(custom_finalize)]
pub struct NativeIoas {
    space: Ioas,
}

impl NativeIoas {
    pub(crate) const fn ioas(&self) -> &Ioas {
        &self.space
    }
}

#[napi]
impl NativeIoas {
    /// Returns its present capabilities.
    #[napi]
    pub fn info<'env>(&self, env: &'env Env) -> napi::Result<NativeIoasInfo<'env>> {
        let info = self.space.info().map_err(to_js)?;
        Ok(NativeIoasInfo {
            alignment: U64(info.alignment),
            iova_ranges: BigUint64ArraySlice::copy_from(env, range_words(&info.iova_ranges))?,
        })
    }
}

space_methods!(NativeIoas);
