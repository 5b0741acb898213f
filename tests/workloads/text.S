// A shared object that is all program text: PAGES functions, each spread over a page of its own.
//
// u64 function(u64) at text_base + 4096 * i. Its code comes in eight pieces of 512 bytes, so that a call runs through
// the whole page, as real code does, and not only its first line.

#ifndef PAGES
#define PAGES 3072
#endif

        .section .rodata
        .globl  text_pages
        .type   text_pages, %object
text_pages:
        .long   PAGES
        .size   text_pages, 4

        .text
        .balign 4096
        .globl  text_base
        .type   text_base, %function
text_base:

#if defined(__x86_64__)
        .rept   PAGES
        .balign 4096
        movq    %rdi, %rax
        .rept   7
        leaq    0x3779(%rax,%rax,4), %rax
        rolq    $13, %rax
        xorq    %rdi, %rax
        jmp     1f
        .balign 512
1:
        .endr
        ret
        .endr
#else
#error "text.S knows x86-64 only"
#endif
        .balign 4096
        .size   text_base, . - text_base

        .section .note.GNU-stack, "", %progbits
