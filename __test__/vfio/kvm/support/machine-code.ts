/**
 * Machine code of the tests' guests, in 64-bit mode (Intel SDM volume 2).
 */

/** Instructions, one after another. */
export class Code {
  readonly #bytes: number[] = [];

  /** The number of bytes so far: the offset of the next instruction. */
  get length(): number {
    return this.#bytes.length;
  }

  bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  /** `mov rax, value` */
  rax(value: bigint): this {
    return this.#add(0x48, 0xb8).#long(value);
  }

  /** `mov rbx, value` */
  rbx(value: bigint): this {
    return this.#add(0x48, 0xbb).#long(value);
  }

  /** `mov rcx, value` */
  rcx(value: bigint): this {
    return this.#add(0x48, 0xb9).#long(value);
  }

  /** `mov [rbx], al`, `ax`, `eax` or `rax` */
  store(width: number): this {
    return this.#add(...prefix(width), width === 1 ? 0x88 : 0x89, 0x03);
  }

  /** `mov al, [rbx]`, `ax`, `eax` or `rax` */
  load(width: number): this {
    return this.#add(...prefix(width), width === 1 ? 0x8a : 0x8b, 0x03);
  }

  /** `mov dx, port; out dx, al`, `ax` or `eax` */
  out(port: number, width = 1): this {
    this.#add(0x66, 0xba, port & 0xff, port >> 8);
    return this.#add(...prefix(width), width === 1 ? 0xee : 0xef);
  }

  /** `mov dx, port; in al, dx`, `ax` or `eax` */
  in(port: number, width = 1): this {
    this.#add(0x66, 0xba, port & 0xff, port >> 8);
    return this.#add(...prefix(width), width === 1 ? 0xec : 0xed);
  }

  /** `rep outsb` of a text, which follows a jump over it. */
  outString(port: number, text: string): this {
    const bytes = new TextEncoder().encode(text);
    this.#add(0x48, 0x8d, 0x35, 2, 0, 0, 0)
      .#add(0xeb, bytes.length)
      .#add(...bytes);
    this.#add(0xb9, bytes.length, 0, 0, 0).#add(0x66, 0xba, port & 0xff, port >> 8);
    return this.#add(0xf3, 0x6e);
  }

  /** `inc qword [rbx]` */
  increment(): this {
    return this.#add(0x48, 0xff, 0x03);
  }

  /** `jmp` to the instruction at an offset */
  jump(offset: number): this {
    const distance = offset - (this.length + 5);
    return this.#add(0xe9, ...new Uint8Array(Int32Array.of(distance).buffer));
  }

  /** `test eax, eax; jz` to the instruction at an offset */
  jumpIfZero(offset: number): this {
    this.#add(0x85, 0xc0);
    const distance = offset - (this.length + 6);
    return this.#add(0x0f, 0x84, ...new Uint8Array(Int32Array.of(distance).buffer));
  }

  /** `hlt` */
  halt(): this {
    return this.#add(0xf4);
  }

  /** `sti` */
  enableInterrupts(): this {
    return this.#add(0xfb);
  }

  /** `ud2`: an instruction that no processor has. Without a handler of the guest, a triple fault */
  undefinedInstruction(): this {
    return this.#add(0x0f, 0x0b);
  }

  /** Other instructions. */
  raw(...bytes: readonly number[]): this {
    return this.#add(...bytes);
  }

  #long(value: bigint): this {
    return this.#add(...new Uint8Array(BigUint64Array.of(value).buffer));
  }

  #add(...bytes: readonly number[]): this {
    this.#bytes.push(...bytes);
    return this;
  }
}

/** The prefix of an instruction's operand size. */
function prefix(width: number): readonly number[] {
  if (width === 2) return [0x66];
  return width === 8 ? [0x48] : [];
}
