/* Firmware that moves BAR 2 of the device at 00:04.0, an ivshmem, and prints the ticks of the time stamp counter.
   For each move it writes four numbers of 32 bits to the debug port: the ticks of switching memory decode off, of
   writing the address, of switching memory decode on, and of the first read at the new address. Then it ends by a
   write to port 0xf4: 0, or 1 if the BAR is not at its new address, or still at the old one. */

#define MOVES 300
#define DEVICE (0x80000000 | 4 << 11)
#define COMMAND 0x04
#define BAR0 0x10
#define BAR2 0x18
#define BAR2_HIGH 0x1c
#define MEMORY 0x02
#define REGISTERS 0xd8000000
#define HERE 0xc0000000
#define THERE 0xd0000000
#define MARK 0x12345678
#define STACK 0x8000
#define FIRMWARE 0xffff0000

	.macro config register, value
	mov $(DEVICE | \register), %eax
	mov $0xcf8, %dx
	out %eax, %dx
	mov \value, %eax
	mov $0xcfc, %dx
	out %eax, %dx
	.endm

	.macro print value
	mov \value, %eax
	mov $4, %ecx
9:	out %al, $0xe9
	shr $8, %eax
	loop 9b
	.endm

	.code32
main:
	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %ss
	mov $STACK, %esp
	config BAR0, $REGISTERS
	config BAR2, $HERE
	config BAR2_HIGH, $0
	config COMMAND, $MEMORY
	movl $MARK, HERE
	movl $MOVES, %ebp
	mov $THERE, %edi /* the next address; HERE + THERE - edi is the present one */
move:
	rdtsc
	push %eax
	config COMMAND, $0
	rdtsc
	push %eax
	config BAR2, %edi
	rdtsc
	push %eax
	config COMMAND, $MEMORY
	rdtsc
	push %eax
	mov (%edi), %esi
	rdtsc
	push %eax
	cmp $MARK, %esi
	jne wrong
	mov $(HERE ^ THERE), %ebx
	xor %edi, %ebx
	cmpl $MARK, (%ebx)
	je wrong
	mov %ebx, %edi

	pop %esi /* after the read, and back to the start */
	pop %ebx
	sub %ebx, %esi
	pop %edx
	sub %edx, %ebx
	pop %ecx
	sub %ecx, %edx
	pop %eax
	sub %eax, %ecx
	push %esi
	push %ebx
	push %edx
	push %ecx
	print (%esp)
	print 4(%esp)
	print 8(%esp)
	print 12(%esp)
	add $16, %esp
	dec %ebp
	jnz move
	mov $0, %al
	jmp end
wrong:
	mov $1, %al
end:
	out %al, $0xf4
	hlt /* QEMU ends later than the instruction */

	.align 8
descriptors: /* flat segments of 32 bits: Intel SDM volume 3, 3.4.5 */
	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
table:
	.word table - descriptors - 1
	.long FIRMWARE + descriptors

	.code16
start:
	cli
	lgdtl %cs:table
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $0x08, $(FIRMWARE + main)

	.org 0xfff0 /* the first instruction of a processor: Intel SDM volume 3, 9.1.4 */
	jmp start
	.org 0x10000
