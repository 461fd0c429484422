; Instructions that take or leave flags and write memory, each to a page that was not written before: that write can fault, and
; the instruction that then runs again must find its flags as they were. Compared with what it does to a register.
%include "common.inc"
PAGES   equ 0x400000
OLD     equ 0x35
STATUS  equ 0x8c5               ; OF, SF, ZF, PF, CF
        mov rdi, PAGES
        mov r10d, 1
        xor r12d, r12d          ; how many go wrong
        jmp begin

%macro by_test 0
        test r10d, r10d
%endmacro
%macro by_add 0                 ; overflow
        mov eax, 0x7fffffff
        add eax, r10d
%endmacro
%macro by_shl 0                 ; carry
        mov eax, 0xc0000000
        shl eax, 1
%endmacro
%macro by_inc 0                 ; zero, and the carry of before
        or eax, -1
        stc
        inc eax
%endmacro

; both FLAGS, OPERATION [, {, SOURCE}]: on BL and on a byte of the next page, with flags by that macro
%macro both 2-3
        mov bl, OLD
        %1
        %2 bl %3
        pushfq
        pop r13
        mov al, [rdi]           ; mapped, but for writing
        %1
        %2 byte [rdi] %3
        pushfq
        pop r14
        call compare
%endmacro

%macro conditions 2-*           ; FLAGS, conditions of SETcc
        %define flags %1
        %rep %0 - 1
        %rotate 1
        both flags, set%+1
        %endrep
%endmacro

%macro all 1
        conditions %1, o, no, c, nc, z, nz, na, a, s, ns, pe, po, l, nl, ng, g
        both %1, adc, {, 7}
        both %1, sbb, {, 7}
        both %1, rcl, {, 1}
        both %1, rcr, {, 1}
        both %1, rcl, {, cl}
        both %1, rol, {, 1}
        both %1, rol, {, cl}
        both %1, shl, {, cl}
        both %1, inc
        both %1, neg
%endmacro

begin:  mov ecx, 120            ; what the byte is before
        mov rax, rdi
.fill:  mov byte [rax], OLD
        add rax, 0x1000
        dec ecx
        jnz .fill
        mov r15d, 200           ; so long that no page stays writable
.wait:  out POST, al
        dec r15d
        jnz .wait
        mov cl, 3
        all by_test
        all by_add
        all by_shl
        all by_inc
        mov ebx, r12d
        print token
        call print_hex
        finish 0

compare:
        cmp bl, [rdi]
        jne .wrong
        xor r13, r14
        test r13d, STATUS
        jz .right
.wrong: inc r12d
.right: add rdi, 0x1000
        ret

        library
token:  db "flags: wrong ", 0
