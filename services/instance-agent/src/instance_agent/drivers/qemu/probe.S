# as --64 -o probe.o probe.S && ld -m elf_x86_64 -Ttext 0x7c00 --oformat binary -o probe.bin probe.o
#
# Does a guest really run? Goes from the boot sector through protected mode and paging into long
# mode, counts there, and ends QEMU with status 33 by isa-debug-exit.
.code16
.globl _start
_start:
  cli
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%es
  mov %ax,%ss
  mov $0x7c00,%sp
  cld
  mov $0x1000,%di      # page tables at 0x1000-0x3fff: the first 2 MiB, identity
  xor %eax,%eax
  mov $0xc00,%cx
  rep stosl
  movl $0x2003,0x1000
  movl $0x3003,0x2000
  movl $0x0083,0x3000
  mov %cr4,%eax
  or $0x20,%eax        # PAE
  mov %eax,%cr4
  mov $0x1000,%eax
  mov %eax,%cr3
  mov $0xc0000080,%ecx # EFER.LME
  rdmsr
  or $0x100,%eax
  wrmsr
  lgdt gdtr
  mov %cr0,%eax
  or $0x80000001,%eax  # PG and PE
  mov %eax,%cr0
  ljmp $8,$long
.code64
long:
  mov $50000000,%rcx
1: dec %rcx
  jnz 1b
  mov $0x10,%al
  out %al,$0xf4
2: hlt
  jmp 2b
.align 8
gdt: .quad 0, 0x00209a0000000000
gdtr: .word . - gdt - 1
  .long gdt
.org 510
.word 0xaa55
