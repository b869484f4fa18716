//! Errors for JavaScript: an `Error` that has the fields of an error of the core.

use napi::bindgen_prelude::{JsObjectValue, JsValue, ToNapiValue, TypeName};
use napi::{Env, JsError, Property, PropertyAttributes, ValueType, sys};
use napi_derive::napi;
use peerdma_core::{Error, ErrorCode, Result};

use crate::numbers::U64;

/// Addresses that an error is about.
#[napi(object, object_from_js = false)]
pub struct NativeRange {
    /// The first address.
    pub start: U64,
    /// The first address after the range.
    pub end: U64,
}

/// A JavaScript `Error` named `NativeError`. It has the code, and if known errno, system call and range.
pub struct NativeError(Error);

impl From<Error> for NativeError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl TypeName for NativeError {
    fn type_name() -> &'static str {
        "Error"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ToNapiValue for NativeError {
    unsafe fn to_napi_value(
        env: sys::napi_env,
        Self(error): Self,
    ) -> napi::Result<sys::napi_value> {
        let code_and_message = napi::Error::new(error.code().as_str(), error.message());
        let created = JsError::from(code_and_message).into_unknown(Env::from_raw(env));
        let mut object = created.coerce_to_object()?;
        let env = Env::from_raw(env);
        let mut properties = vec![property("name")?.with_napi_value(&env, "NativeError")?];
        if let Some(errno) = error.errno_name() {
            properties.push(property("errno")?.with_napi_value(&env, errno)?);
        }
        if let Some(syscall) = error.syscall() {
            properties.push(property("syscall")?.with_napi_value(&env, syscall)?);
        }
        if let Some(range) = error.range() {
            let (start, end) = (U64(range.start()), U64(range.end()));
            let range = NativeRange { start, end };
            properties.push(property("range")?.with_napi_value(&env, range)?);
        }
        object.define_properties(&properties)?;
        Ok(object.raw())
    }
}

/// A property that is defined, not assigned: an assignment would call setters of the prototypes.
fn property(name: &str) -> napi::Result<Property> {
    let attributes = PropertyAttributes::Writable | PropertyAttributes::Configurable;
    let property = Property::new().with_utf8_name(name)?;
    Ok(property.with_property_attributes(attributes | PropertyAttributes::Enumerable))
}

/// Converts an error to one that napi-rs throws, or rejects a promise with.
pub(crate) fn throwable(env: &Env, error: Error) -> napi::Error {
    match NativeError(error).into_unknown(env) {
        Ok(value) => napi::Error::from_unknown_without_coercion(value),
        Err(error) => error, // the environment ends: no JavaScript receives an error
    }
}

/// Calls the core, and throws its error.
pub(crate) fn or_throw<T>(env: &Env, call: impl FnOnce() -> Result<T>) -> napi::Result<T> {
    call().map_err(|error| throwable(env, error))
}

/// Creates the error for an invalid argument.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}

/// Creates the error for the use of a closed object.
pub(crate) fn closed(subject: &str) -> Error {
    Error::new(ErrorCode::Closed, format!("the {subject} is closed"))
}
