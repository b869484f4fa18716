//! Whether a PCI device's memory is enabled, and which writes to config space disable it.

const COMMAND: u64 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const STATUS: u64 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// The header type, in the lower byte. VFIO reads it from the device; it keeps a copy of the ids.
const HEADER_TYPE: u64 = 0x0e;
const CAPABILITIES: u64 = 0x34;
const CAP_POWER: u8 = 0x01;
const CAP_EXPRESS: u8 = 0x10;
/// The upper byte of Device Control, whose highest bit resets the function (PCI Express 6.0, 7.5.3.4).
const DEVICE_CONTROL_HIGH: u64 = 9;
const INITIATE_RESET: u8 = 1 << 7;
/// The upper half of Device Capabilities. Its bit 28 means that the function supports that reset (7.5.3.3 there).
const DEVICE_CAPABILITIES_HIGH: u64 = 6;
const FUNCTION_RESET: u16 = 1 << 12;
/// Advanced Features. Bit 0 of its control register resets the function (PCI, ECN of 2007).
const CAP_ADVANCED: u8 = 0x13;
const ADVANCED_CONTROL: u64 = 4;
const ADVANCED_RESET: u8 = 1 << 0;
/// The length and capabilities of Advanced Features. Bit 0 of the upper byte means transactions pending, bit 1 the
/// reset.
const ADVANCED_CAPABILITIES: u64 = 2;
const ADVANCED_TP_AND_RESET: u16 = 0x0300;
/// The offset of PMCSR, which contains the power state (PCI PM 1.2, 3.2.4).
const PMCSR: u64 = 4;
const POWER_STATE: u16 = 0b11;
const D3_HOT: u16 = 3;
/// The largest number of capabilities in the 256 bytes of conventional config space.
const MAX_CAPABILITIES: usize = 48;

/// The offsets of the capabilities that affect a device's memory. They do not change while the device is open: the
/// kernel fixes the chain at open (`vfio_config_init`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    power: Option<u64>,
    express: Option<u64>,
    advanced: Option<u64>,
}

impl Capabilities {
    /// Finds the capabilities. `read` returns 16 bits of config space, or `None`. In that case, and while the device
    /// does not respond, the offsets are unknown.
    pub(super) fn find(mut read: impl FnMut(u64) -> Option<u16>) -> Option<Self> {
        let mut found = Self::default();
        if is_absent(&mut read) {
            return None;
        }
        if read(STATUS)? & STATUS_CAPABILITIES == 0 {
            return Some(found);
        }
        let mut at = pointer(read(CAPABILITIES)?.to_le_bytes()[0]);
        for _ in 0..MAX_CAPABILITIES {
            if at < 0x40 {
                break;
            }
            let [id, next] = read(at)?.to_le_bytes();
            let place = match id {
                CAP_POWER => &mut found.power,
                CAP_EXPRESS => &mut found.express,
                CAP_ADVANCED => &mut found.advanced,
                _ => &mut None,
            };
            place.get_or_insert(at);
            at = pointer(next);
        }
        // If the device disappears meanwhile, the chain ends anywhere.
        (!is_absent(&mut read)).then_some(found)
    }

    /// Whether accessing a mapped BAR is safe: memory decode is on and the device is not in D3hot. Otherwise the
    /// kernel sends `SIGBUS`.
    pub(super) fn memory_accessible(&self, mut read: impl FnMut(u64) -> Option<u16>) -> bool {
        if is_absent(&mut read) {
            return false;
        }
        if read(COMMAND).is_none_or(|command| command & COMMAND_MEMORY == 0) {
            return false;
        }
        // A device without power management is always in D0.
        self.power.is_none_or(|at| {
            let status = read(at.saturating_add(PMCSR));
            status.is_none_or(|status| status & POWER_STATE != D3_HOT)
        })
    }

    /// Whether writing `bytes` at `offset` of config space makes the kernel reset the function. It does if they set a
    /// reset bit of a capability that supports the reset (`vfio_exp_config_write`, `vfio_af_config_write`).
    pub(super) fn resets_function(
        &self,
        mut read: impl FnMut(u64) -> Option<u16>,
        offset: u64,
        bytes: &[u8],
    ) -> bool {
        let written = |at: u64| bytes.get(usize::try_from(at.checked_sub(offset)?).ok()?);
        let mut sets = |place: Option<u64>, register: u64, bit, (able, needed): (u64, u16)| {
            let Some(at) = place else { return false };
            written(at.saturating_add(register)).is_some_and(|byte| byte & bit != 0)
                && read(at.saturating_add(able)).is_some_and(|found| found & needed == needed)
        };
        let express = (DEVICE_CAPABILITIES_HIGH, FUNCTION_RESET);
        let advanced = (ADVANCED_CAPABILITIES, ADVANCED_TP_AND_RESET);
        sets(self.express, DEVICE_CONTROL_HIGH, INITIATE_RESET, express)
            || sets(self.advanced, ADVANCED_CONTROL, ADVANCED_RESET, advanced)
    }
}

/// Whether the device does not respond. Then everything reads as all ones, which is not a valid header type. `read`
/// returns 16 bits of config space, or `None`: the result is `false` then.
pub(super) fn is_absent(mut read: impl FnMut(u64) -> Option<u16>) -> bool {
    read(HEADER_TYPE).is_some_and(|field| field & 0xff == 0xff)
}

fn pointer(raw: u8) -> u64 {
    u64::from(raw & !3)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(fields: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = vec![0_u8; 256];
        for (at, value) in [(0, 0x34), (1, 0x12), (4, 2), (6, 0x10), (0x34, 0x40)]
            .iter()
            .chain(fields)
        {
            bytes[*at] = *value;
        }
        bytes
    }

    fn accessible(bytes: &[u8]) -> bool {
        let places = Capabilities::find(|at| field(bytes, at)).unwrap_or_default();
        places.memory_accessible(|at| field(bytes, at))
    }

    fn field(bytes: &[u8], at: u64) -> Option<u16> {
        let at = usize::try_from(at).unwrap();
        let field = bytes.get(at..at + 2)?;
        Some(u16::from_le_bytes(field.try_into().unwrap()))
    }

    #[test]
    fn follows_the_command_register() {
        assert!(accessible(&config(&[])));
        assert!(!accessible(&config(&[(4, 0)])));
        assert!(!accessible(&config(&[(4, 5)])));
        assert!(accessible(&config(&[(4, 7)])));
    }

    #[test]
    fn follows_the_power_state() {
        let with_power = |state| config(&[(0x40, 0x05), (0x41, 0x50), (0x50, 0x01), (0x54, state)]);
        assert!(accessible(&with_power(0)));
        assert!(!accessible(&with_power(3)));
        assert!(accessible(&with_power(0xfc)));
    }

    #[test]
    fn two_bits_reset_a_function() {
        let express = config(&[(0x40, 0x05), (0x41, 0x50), (0x50, 0x10), (0x57, 0x10)]);
        let advanced = config(&[(0x40, 0x13), (0x43, 3)]);
        let resets = |config: &[u8], offset, bytes: &[u8]| {
            let places = Capabilities::find(|at| field(config, at)).unwrap();
            places.resets_function(|at| field(config, at), offset, bytes)
        };
        assert!(resets(&express, 0x58, &[0, 0x80]));
        assert!(resets(&express, 0x59, &[0x80]));
        assert!(resets(&express, 0x50, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]));
        assert!(!resets(&express, 0x58, &[0xff, 0x7f]));
        assert!(!resets(&express, 0x5a, &[0x80]));
        assert!(!resets(&express, 0x44, &[1]));
        assert!(resets(&advanced, 0x44, &[1]));
        assert!(!resets(&advanced, 0x44, &[0xfe]));
        assert!(!resets(&advanced, 0x49, &[0xff]));
        assert!(!resets(&config(&[]), 0, &[0xff; 256]));
    }

    #[test]
    fn a_removed_device_is_not_accessible() {
        assert!(!accessible(&[0xff; 256]));
        assert!(!accessible(&[]));
    }

    #[test]
    fn capabilities_are_unknown_while_the_device_does_not_respond() {
        assert_eq!(Capabilities::find(|_| Some(0xffff)), None);
        assert_eq!(Capabilities::find(|_| None), None);
        let bytes = config(&[(0x40, 0x01), (0x41, 0x50), (0x50, 0x01)]);
        let found = Capabilities::find(|at| field(&bytes, at)).unwrap();
        assert_eq!(found.power, Some(0x40), "the first of two");
        let without = config(&[(6, 0), (0x40, 0x01)]);
        let found = Capabilities::find(|at| field(&without, at));
        assert_eq!(found, Some(Capabilities::default()));
    }

    #[test]
    fn ends_at_a_loop_in_the_chain() {
        assert!(accessible(&config(&[(0x40, 0x05), (0x41, 0x40)])));
    }

    proptest! {
        #[test]
        fn accepts_any_config_space(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = accessible(&bytes);
        }
    }
}
