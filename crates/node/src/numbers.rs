//! Numbers that are converted only without loss.

use std::ptr;

use napi::bindgen_prelude::{
    BigUint64ArraySlice, FromNapiValue, ToNapiValue, TypeName, ValidateNapiValue,
};
use napi::{Env, ValueType, check_status, sys};
use peerdma_core::{Error, ErrorCode, Range, Result};

use crate::error::{invalid, or_throw, throwable};

/// The largest integer that a `number` represents exactly, as it does all smaller ones.
pub(crate) const MAX_SAFE: u64 = (1 << 53) - 1;

/// A `bigint` in 0..2^64.
#[derive(Debug, Clone, Copy)]
pub struct U64(pub u64);

impl TypeName for U64 {
    fn type_name() -> &'static str {
        "bigint"
    }

    fn value_type() -> ValueType {
        ValueType::BigInt
    }
}

impl ValidateNapiValue for U64 {}

impl FromNapiValue for U64 {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let (mut number, mut lossless) = (0, false);
        // SAFETY: env and value are the running call's; the results outlive the call.
        let status = unsafe {
            sys::napi_get_value_bigint_uint64(env, value, &raw mut number, &raw mut lossless)
        };
        if status != sys::Status::napi_ok {
            return Err(throwable(&Env::from_raw(env), invalid("expected a bigint")));
        }
        if lossless {
            return Ok(Self(number));
        }
        let (mut negative, mut count, mut word) = (0, 1, 0);
        // SAFETY: as above; the buffer has space for the one word.
        let status = unsafe {
            sys::napi_get_value_bigint_words(
                env,
                value,
                &raw mut negative,
                &raw mut count,
                &raw mut word,
            )
        };
        let error = if status == sys::Status::napi_ok && negative == 0 {
            Error::new(ErrorCode::OutOfRange, "a bigint exceeds 2^64 - 1")
        } else {
            invalid("a bigint must not be negative")
        };
        Err(throwable(&Env::from_raw(env), error))
    }
}

impl ToNapiValue for U64 {
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        let mut result = ptr::null_mut();
        // SAFETY: env is the running call's; the result outlives the call.
        check_status!(unsafe { sys::napi_create_bigint_uint64(env, value.0, &raw mut result) })?;
        Ok(result)
    }
}

/// A `BigUint64Array` with a buffer of the environment, so that JavaScript can transfer it.
#[derive(Debug)]
pub struct Words(pub Vec<u64>);

impl Words {
    /// Pairs of start and length.
    pub(crate) fn from_ranges(ranges: &[Range]) -> Self {
        Self(
            ranges
                .iter()
                .flat_map(|range| [range.start(), range.len()])
                .collect(),
        )
    }
}

impl TypeName for Words {
    fn type_name() -> &'static str {
        "BigUint64Array"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ToNapiValue for Words {
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        let copy = BigUint64ArraySlice::copy_from(&Env::from_raw(env), value.0)?;
        // SAFETY: created just now, in this environment.
        unsafe { BigUint64ArraySlice::to_napi_value(env, copy) }
    }
}

/// A `number` that is an integer in 0..2^53.
#[derive(Debug, Clone, Copy)]
pub struct Index(pub u64);

impl Index {
    /// Converts to 32 bits.
    pub(crate) fn as_u32(self, subject: &str) -> Result<u32> {
        u32::try_from(self.0).map_err(|_| invalid(format!("{subject} {} exceeds 2^32 - 1", self.0)))
    }
}

impl TypeName for Index {
    fn type_name() -> &'static str {
        "number"
    }

    fn value_type() -> ValueType {
        ValueType::Number
    }
}

impl ValidateNapiValue for Index {}

impl FromNapiValue for Index {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: env and value are the running call's.
        let Signed(number) = unsafe { Signed::from_napi_value(env, value) }?;
        or_throw(&Env::from_raw(env), || {
            u64::try_from(number)
                .map(Self)
                .map_err(|_| invalid(format!("expected a number of at least 0, got {number}")))
        })
    }
}

impl ToNapiValue for Index {
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        let mut result = ptr::null_mut();
        let number = i64::try_from(value.0.min(MAX_SAFE)).unwrap_or(0);
        // SAFETY: env is the running call's; the result outlives the call.
        check_status!(unsafe { sys::napi_create_int64(env, number, &raw mut result) })?;
        Ok(result)
    }
}

/// A `number` that is an integer in -2^53..2^53.
#[derive(Debug, Clone, Copy)]
pub struct Signed(pub i64);

impl TypeName for Signed {
    fn type_name() -> &'static str {
        "number"
    }

    fn value_type() -> ValueType {
        ValueType::Number
    }
}

impl ValidateNapiValue for Signed {}

impl FromNapiValue for Signed {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        let (mut double, mut number) = (0.0, 0);
        // SAFETY: env and value are the running call's; the results outlive the calls.
        let statuses = unsafe {
            [
                sys::napi_get_value_double(env, value, &raw mut double),
                sys::napi_get_value_int64(env, value, &raw mut number),
            ]
        };
        or_throw(&Env::from_raw(env), || {
            if statuses != [sys::Status::napi_ok; 2] {
                return Err(invalid("expected a number"));
            }
            if double.fract() != 0.0 || number.unsigned_abs() > MAX_SAFE || !double.is_finite() {
                return Err(invalid(format!("expected an integer, got {double}")));
            }
            Ok(Self(number))
        })
    }
}

/// The number of a descriptor: a `number` that is an integer in 0..2^31.
#[derive(Debug, Clone, Copy)]
pub struct Fd(pub i32);

impl TypeName for Fd {
    fn type_name() -> &'static str {
        "number"
    }

    fn value_type() -> ValueType {
        ValueType::Number
    }
}

impl ValidateNapiValue for Fd {}

impl FromNapiValue for Fd {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: env and value are the running call's.
        let Signed(number) = unsafe { Signed::from_napi_value(env, value) }?;
        or_throw(&Env::from_raw(env), || {
            let fd = i32::try_from(number).ok().filter(|fd| *fd >= 0);
            fd.map(Self)
                .ok_or_else(|| invalid(format!("{number} is not a file descriptor")))
        })
    }
}
