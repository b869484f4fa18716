//! `Uint8Array`s of JavaScript, by address and length: devices may write their bytes.

use std::ptr;

use napi::bindgen_prelude::{FromNapiValue, ToNapiValue, TypeName, ValidateNapiValue};
use napi::{Env, ValueType, sys};
use peerdma_core::memory::{ByteSink, ByteSource};

use crate::error::{invalid, throwable};

/// The bytes of a `Uint8Array` that is an argument of the running call.
#[derive(Debug)]
pub struct Bytes {
    address: *mut u8,
    length: usize,
}

impl Bytes {
    /// Returns the bytes to copy from.
    pub(crate) fn source(&self) -> ByteSource<'_> {
        // SAFETY: JavaScript's thread is in the call whose argument the array is, so its bytes stay where they are.
        // They are only passed to system calls, and no Rust reference to them exists.
        unsafe { ByteSource::from_raw(self.address, self.length) }
    }

    /// Returns the bytes to fill.
    pub(crate) fn sink(&mut self) -> ByteSink<'_> {
        // SAFETY: as for `source`.
        unsafe { ByteSink::from_raw(self.address, self.length) }
    }
}

impl TypeName for Bytes {
    fn type_name() -> &'static str {
        "Uint8Array"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ValidateNapiValue for Bytes {}

impl FromNapiValue for Bytes {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let (mut kind, mut length, mut address) = (-1, 0, ptr::null_mut());
        // SAFETY: env and value are the running call's; the results outlive the call.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                env,
                value,
                &raw mut kind,
                &raw mut length,
                &raw mut address,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if status != sys::Status::napi_ok || kind != sys::TypedarrayType::uint8_array {
            return Err(throwable(
                &Env::from_raw(env),
                invalid("expected a Uint8Array"),
            ));
        }
        Ok(Self {
            address: address.cast(),
            length,
        })
    }
}

/// A `Uint8Array` with a buffer of the environment, so that JavaScript can transfer it.
#[derive(Debug)]
pub struct NewBytes(pub Vec<u8>);

impl TypeName for NewBytes {
    fn type_name() -> &'static str {
        "Uint8Array"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ToNapiValue for NewBytes {
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        #[expect(
            clippy::disallowed_types,
            reason = "no device reaches the new bytes, and no Rust slice of them is made"
        )]
        type Array<'a> = napi::bindgen_prelude::Uint8ArraySlice<'a>;
        let copy = Array::copy_from(&Env::from_raw(env), value.0)?;
        // SAFETY: created just now, in this environment.
        unsafe { Array::to_napi_value(env, copy) }
    }
}
