; MSRs that kernels read without a handler for #GP (NOVA, Genode), and processor features that they need. The index of an MSR
; that faults is printed.
%include "common.inc"
        gate 13, refused
        load_idt
        lea r12, [rel always]
.next:  mov ecx, [r12]
        add r12, 4
        test ecx, ecx
        jz .machine_check
        rdmsr
        jmp .next

.machine_check:                 ; if it is shown
        mov eax, 1
        cpuid
        and edx, 1 << 7 | 1 << 14
        cmp edx, 1 << 7 | 1 << 14
        jne .apic
        mov ecx, 0x179          ; IA32_MCG_CAP
        rdmsr
        movzx r13d, al
        mov ecx, 0x17a          ; IA32_MCG_STATUS
        rdmsr
        mov ecx, 0x400          ; IA32_MCi_CTL, STATUS
.bank:  test r13d, r13d
        jz .apic
        rdmsr
        inc ecx
        rdmsr
        add ecx, 3
        dec r13d
        jmp .bank

.apic:  mov eax, 1
        cpuid
        test edx, 1 << 9
        jz refused
        shr ebx, 24             ; as in the MADT
        jnz refused
        mov ecx, 0x1b
        rdmsr
        and eax, 0xfffff900
        cmp eax, 0xfee00900     ; enabled, boot CPU, where it always is
        jne refused
        mov eax, 1              ; x86-64-v2
        cpuid
        mov ebx, 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23
        and ecx, ebx
        cmp ecx, ebx
        jne refused
        mov eax, 0x80000001
        cpuid
        test ecx, 1             ; LAHF
        jz refused
        test edx, 1 << 20       ; NX
        jz refused
        print token
        finish 0
refused:
        mov ebx, ecx
        call print_hex
        finish 1
always: dd 0x1b, 0x8b, 0x17, 0xce, 0x277, 0xc0000080, 0
token:  db "msrs: OK", 10, 0
        library
        interrupt_table
