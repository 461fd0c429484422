; A kernel that keeps time by the TSC and waits by the local APIC's timer: both are calibrated by the PM timer, then 10 alarms of
; 100 ms must come within 5 % of when the TSC expects them, and within 5 % by the PM timer.
%include "common.inc"
LAPIC   equ 0xfee00000
EOI     equ 0xb0
SVR     equ 0xf0
LVTT    equ 0x320
LINT0   equ 0x350
INITIAL equ 0x380
CURRENT equ 0x390
DIVIDE  equ 0x3e0
PMTIMER equ 0x608
PM_HZ   equ 3579545
CALIBRATION equ PM_HZ / 50      ; 20 ms
ALARMS  equ 10

%macro lapic 2                  ; register, value
        mov dword [rbp + %1], %2
%endmacro
%macro read_tsc 1               ; RAX, RDX are changed
        rdtsc
        shl rdx, 32
        lea %1, [rdx + rax]
%endmacro
%macro read_pm 1
        mov dx, PMTIMER
        in eax, dx
        mov %1, eax
%endmacro
; between EXPECTED - 5 % and + 5 %: RAX is, RBX is what is expected
%macro check 1                  ; number
        mov r14b, %1
        call within
%endmacro

        mov ebp, LAPIC
        gate 0x2f, counted
        load_idt
        mov al, 0xff            ; the 8259 is out of it
        out 0x21, al
        lapic LINT0, 0x10000
        lapic SVR, 0x1ff
        lapic DIVIDE, 0xb       ; by 1
        lapic LVTT, 0x1002f     ; masked, one-shot

        lapic INITIAL, -1
        read_pm r12d
        read_tsc r8
.calibrate:
        mov dx, PMTIMER
        in eax, dx
        sub eax, r12d
        cmp eax, CALIBRATION
        jb .calibrate
        mov r13d, eax           ; so many PM ticks have gone
        read_tsc r9
        sub r9, r8
        mov eax, [rbp + CURRENT]
        not eax
        mov r10d, eax
        lapic INITIAL, 0
        ; counts in 100 ms = counts * (PM_HZ / 10) / PM ticks
        mov rax, r9
        mov ecx, PM_HZ / 10
        mul rcx
        div r13
        mov r9, rax             ; TSC
        mov eax, r10d
        mul rcx
        div r13
        mov r10, rax            ; APIC
        lapic LVTT, 0x2f

        xor r15d, r15d
        read_tsc r11            ; of the alarm before
        read_pm r12d
.alarm: mov eax, r15d
        inc eax
        mov [rel wanted], eax
        mov eax, r10d
        mov [rbp + INITIAL], eax
.sleep: sti
        hlt
        cli
        cmp r15d, [rel wanted]
        jb .sleep
        read_tsc rcx
        mov rax, rcx
        sub rax, r11
        mov r11, rcx
        mov rbx, r9
        check 1
        read_pm ecx
        mov eax, ecx
        sub eax, r12d
        mov r12d, ecx
        mov ebx, PM_HZ / 10
        check 2
        cmp r15d, ALARMS
        jb .alarm
        print token
        finish 0

within: mov rdi, rax
        mov rax, rbx
        xor edx, edx
        mov ecx, 20
        div rcx                 ; 5 %
        mov rdx, rbx
        sub rdx, rax
        cmp rdi, rdx
        jb failed
        lea rdx, [rbx + rax]
        cmp rdi, rdx
        ja failed
        ret
failed: push rdi                ; what it was, and what it should have been
        push rbx
        print wrong
        pop rbx
        call print_hex
        pop rbx
        call print_hex
        mov al, r14b
        out DEBUGEXIT, al
        jmp $

counted:
        inc r15d
        lapic EOI, 0
        iretq
token:  db "alarms: OK", 10, 0
wrong:  db "alarms: expected, seen: ", 10, 0
        align 4
wanted: dd 0
        library
        interrupt_table
