//! VF tokens. The users of a physical function and its virtual functions share one (Linux
//! `vfio_pci_core_match_token_uuid`).

use std::ffi::CString;
use std::fmt;

use crate::{Error, ErrorCode, Result};

/// The separator between a device's address and its token (`VF_TOKEN_ARG` of the kernel).
const SEPARATOR: &str = " vf_token=";
/// The numbers of hexadecimal digits in a UUID.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// A UUID, in the order of its digits, which is also that of the kernel's `uuid_t`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct VfToken(pub(super) [u8; 16]);

impl VfToken {
    /// Parses `bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3`.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT`, without the token, which is a secret.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let digits = || {
            let mut groups = text.split('-');
            let mut digits = Vec::with_capacity(32);
            for length in GROUPS {
                let group = groups.next().filter(|group| group.len() == length)?;
                for digit in group.chars() {
                    digits.push(u8::try_from(digit.to_digit(16)?).ok()?);
                }
            }
            groups.next().is_none().then_some(digits)
        };
        let mut bytes = [0; 16];
        for (byte, pair) in bytes
            .iter_mut()
            .zip(digits().ok_or_else(malformed)?.chunks(2))
        {
            *byte = pair.iter().fold(0, |byte, digit| (byte << 4) | digit);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VfToken")
    }
}

/// A device's address and its token, in the kernel's syntax: `0000:04:10.0 vf_token=UUID`.
#[derive(Debug)]
pub(super) struct DeviceName<'a> {
    pub(super) address: &'a str,
    pub(super) token: Option<VfToken>,
}

impl<'a> DeviceName<'a> {
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if the token is not a UUID.
    pub(super) fn parse(name: &'a str) -> Result<Self> {
        let (address, token) = match name.split_once(SEPARATOR) {
            Some((address, token)) => (address, Some(VfToken::parse(token)?)),
            None => (name, None),
        };
        Ok(Self { address, token })
    }

    /// Returns the argument of `VFIO_GROUP_GET_DEVICE_FD`.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` if the address is empty, too long, or contains a NUL.
    pub(super) fn for_group(&self) -> Result<CString> {
        let Self { address, token } = self;
        let name = token.map_or_else(
            || (*address).to_owned(),
            |token| format!("{address}{SEPARATOR}{token}"),
        );
        CString::new(name)
            .ok()
            .filter(|name| !address.is_empty() && name.count_bytes() < 256)
            .ok_or_else(|| {
                let message = "a device's name must have 1 to 255 bytes and no NUL";
                Error::new(ErrorCode::InvalidArgument, message)
            })
    }
}

fn malformed() -> Error {
    let message = "the VF token is not a UUID such as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3";
    Error::new(ErrorCode::InvalidArgument, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const UUID: &str = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3";

    #[test]
    fn a_token_keeps_the_order_of_its_digits() {
        let token = VfToken::parse(UUID).unwrap();
        assert_eq!(
            token.0,
            [
                0xbd, 0x8d, 0x9d, 0x2b, 0x5a, 0x5f, 0x4f, 0x5a, 0xa2, 0x11, 0xf5, 0x91, 0x51, 0x4b,
                0xa1, 0xf3
            ]
        );
        assert_eq!(token.to_string(), UUID);
        assert_eq!(VfToken::parse(&UUID.to_uppercase()).unwrap(), token);
    }

    #[test]
    fn rejects_a_token_that_is_not_a_uuid_without_naming_it() {
        for text in [
            "",
            "7f1c2a905a5f4f5aa211f591514ba1f3",
            "7f1c2a90-5a5f-4f5a-a211-f591514ba1f",
            "7f1c2a90-5a5f-4f5a-a211-f591514ba1f30",
            "7f1c2a90-5a5f-4f5a-a211-f591514ba1f3-",
            "7f1c2a90-5a5f-4f5a-a211-f591514ba1fg",
            "7f1c2a90-5a5f-4f5aa-211-f591514ba1f3",
            "{7f1c2a90-5a5f-4f5a-a211-f591514ba1f3}",
            " 7f1c2a90-5a5f-4f5a-a211-f591514ba1f3",
            "éf1c2a90-5a5f-4f5a-a211-f591514ba1f3",
        ] {
            let error = VfToken::parse(text).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{text}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }

    #[test]
    fn parses_a_name_with_or_without_a_token() {
        let plain = DeviceName::parse("0000:04:10.0").unwrap();
        assert_eq!((plain.address, plain.token), ("0000:04:10.0", None));
        assert_eq!(plain.for_group().unwrap().to_bytes(), b"0000:04:10.0");
        let text = format!("0000:04:10.0 vf_token={UUID}");
        let name = DeviceName::parse(&text).unwrap();
        assert_eq!(name.address, "0000:04:10.0");
        assert_eq!(name.for_group().unwrap().to_str().unwrap(), text);
        assert!(DeviceName::parse("0000:04:10.0 vf_token=").is_err());
        assert!(DeviceName::parse(&format!("{text} vf_token={UUID}")).is_err());
        for address in ["", "a\0b", &"x".repeat(256)] {
            assert!(
                DeviceName {
                    address,
                    token: None
                }
                .for_group()
                .is_err()
            );
        }
    }

    #[test]
    fn debug_output_omits_the_token() {
        let name = format!("0000:04:10.0 vf_token={UUID}");
        assert!(!format!("{:?}", DeviceName::parse(&name).unwrap()).contains("bd8d"));
    }
}
