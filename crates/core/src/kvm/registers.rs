//! The registers of a processor as an array of words.

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_dtable, kvm_mp_state, kvm_regs, kvm_segment,
    kvm_sregs,
};
use kvm_ioctls::VcpuFd;

use super::system::failed;
use crate::{Error, ErrorCode, Result};

/// Words of the registers: general ones, those of control, segments and descriptor tables.
pub const REGISTER_WORDS: usize = 18 + 7 + 8 * 4 + 2 * 2;

/// Reads words, or writes them: one list of the registers serves both.
trait Words {
    fn word(&mut self, register: &mut u64);
}

struct Reader<'a>(std::slice::Iter<'a, u64>);
struct Writer(Vec<u64>);

impl Words for Reader<'_> {
    fn word(&mut self, register: &mut u64) {
        if let Some(word) = self.0.next() {
            *register = *word;
        }
    }
}

impl Words for Writer {
    fn word(&mut self, register: &mut u64) {
        self.0.push(*register);
    }
}

fn general(words: &mut impl Words, regs: &mut kvm_regs) {
    for register in [
        &mut regs.rax,
        &mut regs.rbx,
        &mut regs.rcx,
        &mut regs.rdx,
        &mut regs.rsi,
        &mut regs.rdi,
        &mut regs.rsp,
        &mut regs.rbp,
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r11,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
        &mut regs.rip,
        &mut regs.rflags,
    ] {
        words.word(register);
    }
}

fn special(words: &mut impl Words, sregs: &mut kvm_sregs) {
    for register in [
        &mut sregs.cr0,
        &mut sregs.cr2,
        &mut sregs.cr3,
        &mut sregs.cr4,
        &mut sregs.cr8,
        &mut sregs.efer,
        &mut sregs.apic_base,
    ] {
        words.word(register);
    }
    for segment in [
        &mut sregs.cs,
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
        &mut sregs.tr,
        &mut sregs.ldt,
    ] {
        self::segment(words, segment);
    }
    for table in [&mut sregs.gdt, &mut sregs.idt] {
        descriptor_table(words, table);
    }
}

/// Base, limit, selector and access rights. The rights are bits 8 to 23 of the second half of a descriptor, moved to
/// bit 0 (Intel SDM volume 3, 26.4.1), with bit 16 for a segment that is unusable.
fn segment(words: &mut impl Words, segment: &mut kvm_segment) {
    let mut limit = u64::from(segment.limit);
    let mut selector = u64::from(segment.selector);
    let mut rights = rights_of(segment);
    words.word(&mut segment.base);
    words.word(&mut limit);
    words.word(&mut selector);
    words.word(&mut rights);
    segment.limit = low32(limit);
    segment.selector = low16(selector);
    set_rights(segment, rights);
}

fn descriptor_table(words: &mut impl Words, table: &mut kvm_dtable) {
    let mut limit = u64::from(table.limit);
    words.word(&mut table.base);
    words.word(&mut limit);
    table.limit = low16(limit);
}

/// The fields of the rights: each with its first bit, and the number of its bits.
fn fields(segment: &mut kvm_segment) -> [(&mut u8, u32, u32); 9] {
    [
        (&mut segment.type_, 0, 4),
        (&mut segment.s, 4, 1),
        (&mut segment.dpl, 5, 2),
        (&mut segment.present, 7, 1),
        (&mut segment.avl, 12, 1),
        (&mut segment.l, 13, 1),
        (&mut segment.db, 14, 1),
        (&mut segment.g, 15, 1),
        (&mut segment.unusable, 16, 1),
    ]
}

fn rights_of(segment: &mut kvm_segment) -> u64 {
    let bits = |(field, first, _): (&mut u8, u32, u32)| u64::from(*field).wrapping_shl(first);
    fields(segment)
        .into_iter()
        .map(bits)
        .fold(0, |all, one| all | one)
}

fn set_rights(segment: &mut kvm_segment, rights: u64) {
    for (field, first, width) in fields(segment) {
        let mask = 0xff_u64.wrapping_shr(8_u32.saturating_sub(width));
        *field = u8::try_from(rights.wrapping_shr(first) & mask).unwrap_or(0);
    }
}

fn low32(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

fn low16(word: u64) -> u16 {
    u16::try_from(word & u64::from(u16::MAX)).unwrap_or(0)
}

/// Returns the registers of a processor that is not in the guest.
pub(super) fn read(fd: &VcpuFd) -> Result<Vec<u64>> {
    let operation = "reading the registers";
    let mut regs = fd
        .get_regs()
        .map_err(failed("ioctl(KVM_GET_REGS)", operation))?;
    let mut sregs = fd
        .get_sregs()
        .map_err(failed("ioctl(KVM_GET_SREGS)", operation))?;
    let mut words = Writer(Vec::with_capacity(REGISTER_WORDS));
    general(&mut words, &mut regs);
    special(&mut words, &mut sregs);
    Ok(words.0)
}

/// Sets the registers of a processor that is not in the guest.
///
/// With `wake`, a halted processor continues. One that waits for its start by another processor still waits.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` for another number of words; `ERR_SYSTEM` for values that the processor rejects: nothing is
/// set then.
pub(super) fn write(fd: &VcpuFd, words: &[u64], wake: bool) -> Result<()> {
    if words.len() != REGISTER_WORDS {
        let message = format!("registers are {REGISTER_WORDS} words, not {}", words.len());
        return Err(Error::new(ErrorCode::InvalidArgument, message));
    }
    let operation = "setting the registers";
    let mut reader = Reader(words.iter());
    let mut regs = kvm_regs::default();
    general(&mut reader, &mut regs);
    let mut sregs = fd
        .get_sregs()
        .map_err(failed("ioctl(KVM_GET_SREGS)", operation))?;
    special(&mut reader, &mut sregs);
    let state = fd
        .get_mp_state()
        .map_err(failed("ioctl(KVM_GET_MP_STATE)", operation))?;
    // The kernel checks these. It takes any values of the others.
    fd.set_sregs(&sregs)
        .map_err(failed("ioctl(KVM_SET_SREGS)", operation))?;
    fd.set_regs(&regs)
        .map_err(failed("ioctl(KVM_SET_REGS)", operation))?;
    if wake && state.mp_state == KVM_MP_STATE_HALTED {
        let runnable = kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        };
        fd.set_mp_state(runnable)
            .map_err(failed("ioctl(KVM_SET_MP_STATE)", operation))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_and_registers_convert_both_ways() {
        let words: Vec<u64> = (0..REGISTER_WORDS)
            .map(|word| word as u64 * 0x101)
            .collect();
        let mut reader = Reader(words.iter());
        let (mut regs, mut sregs) = (kvm_regs::default(), kvm_sregs::default());
        general(&mut reader, &mut regs);
        special(&mut reader, &mut sregs);
        assert!(reader.0.next().is_none(), "every word has a register");
        assert_eq!((regs.rax, regs.rflags), (0, 17 * 0x101));
        let mut writer = Writer(Vec::new());
        general(&mut writer, &mut regs);
        special(&mut writer, &mut sregs);
        let reserved = 0xf00; // bits 8 to 11 of the rights have no field
        let expected: Vec<u64> = words
            .iter()
            .enumerate()
            .map(|(index, word)| {
                if (25..57).contains(&index) && (index - 25) % 4 == 3 {
                    word & !reserved
                } else {
                    *word
                }
            })
            .collect();
        assert_eq!(writer.0, expected);
    }

    #[test]
    fn the_rights_of_a_segment_have_the_bits_of_a_descriptor() {
        let mut segment = kvm_segment::default();
        set_rights(&mut segment, 0xa09b);
        assert_eq!((segment.type_, segment.s, segment.present), (0xb, 1, 1));
        assert_eq!(
            (segment.l, segment.g, segment.db, segment.dpl),
            (1, 1, 0, 0)
        );
        assert_eq!(rights_of(&mut segment), 0xa09b);
    }
}
