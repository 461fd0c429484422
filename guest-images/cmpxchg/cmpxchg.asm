; CMPXCHG8B and CMPXCHG16B change ZF alone. The other flags, and the bits that are none, stay as the instruction before has left
; them: also in an emulator that computes flags late.
%include "common.inc"
ZF      equ 0x40
AF      equ 0x10                ; undefined after most of these
        xor r12d, r12d          ; how many go wrong
        mov r10d, 1
        jmp begin

%macro by_add 0                 ; overflow
        mov ebp, 0x7fffffff
        add ebp, r10d
%endmacro
%macro by_sub 0                 ; borrow
        xor ebp, ebp
        sub rbp, 0x12345678
%endmacro
%macro by_shl 0                 ; carry
        mov ebp, 0xc0000000
        shl ebp, 1
%endmacro
%macro by_xor 0                 ; none, on something like an address
        mov rbp, 0xffff8880051d6ee0
        xor rbp, r12
%endmacro
%macro by_inc 0                 ; zero, and the carry of before
        or ebp, -1
        stc
        inc ebp
%endmacro

; one FLAGS, OPERATION, FOUND: with flags by that macro, and an operand that is the one looked for, or is not (0)
%macro one 3
        xor ebx, ebx
        xor ecx, ecx
        xor edx, edx
        mov eax, 1 - %3
        push 2                  ; no flags, known as such
        popfq
        %1
        pushfq
        pop r13
        push 2
        popfq
        %1
        %2 [rel operand]
        pushfq
        pop r14
        and r13d, ~ZF           ; bits 32 to 63 are not there
        or r13d, %3 * ZF
        call compare
%endmacro

%macro all 1
        one %1, cmpxchg8b, 0
        one %1, cmpxchg8b, 1
        one %1, lock cmpxchg8b, 1
        one %1, cmpxchg16b, 0
        one %1, cmpxchg16b, 1
        one %1, lock cmpxchg16b, 1
%endmacro

begin:  all by_add
        all by_sub
        all by_shl
        all by_xor
        all by_inc
        mov ebx, r12d
        print token
        call print_hex
        finish 0

compare:
        xor r13, r14
        and r13, ~AF
        jz .right
        inc r12d
.right: ret

        library
        align 16
operand: dq 0, 0
token:  db "cmpxchg: wrong ", 0
