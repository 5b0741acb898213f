// The same as text.S for arm64: a shared object that is all program text, PAGES functions, each spread over a page of
// its own.
//
// u64 function(u64) at text_base + 4096 * i, in eight pieces of 512 bytes. It returns what that of text.S does.

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

#if defined(__aarch64__)
        .rept   PAGES
        .balign 4096
        mov     x1, x0
        mov     w2, #0x3779
        .rept   7
        add     x1, x1, x1, lsl #2
        add     x1, x1, x2
        ror     x1, x1, #51
        eor     x1, x1, x0
        b       1f
        .balign 512
1:
        .endr
        mov     x0, x1
        ret
        .endr
#else
#error "text-arm64.S is for arm64"
#endif
        .balign 4096
        .size   text_base, . - text_base

        .section .note.GNU-stack, "", %progbits
