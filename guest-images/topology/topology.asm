; How many processors there are, by each way of asking (SDM 3A 9.9.2; APM 3 E.5): all say one, and each number is divided by
; without a look at whether it's valid, as Genode's and old Linux' code does. A #DE, or another answer, prints the leaf.
%include "common.inc"
        gate 0, refused
        load_idt

%macro share 0                  ; EAX: a number of processors; 60 / it must be 60
        mov ebx, eax
        mov eax, 60
        xor edx, edx
        div ebx
        cmp eax, 60
        jne refused
%endmacro

        mov r12d, 1             ; Intel's: logical processors
        mov eax, 1
        cpuid
        mov r13d, ebx
        shr ebx, 24
        jnz refused             ; APIC id
        mov eax, r13d
        shr eax, 16
        and eax, 0xff
        share                   ; HTT or not: kvm_pvm shows the host's

        mov r12d, 4             ; cores, threads that share a cache
        call last_leaf
        jb .levels
        xor r15d, r15d
.cache: mov eax, 4
        mov ecx, r15d
        cpuid
        test al, 31
        jz .levels
        mov r13d, eax
        shr eax, 26
        inc eax
        share
        mov eax, r13d
        shr eax, 14
        and eax, 0xfff
        inc eax
        share
        inc r15d
        cmp r15d, 8
        jb .cache

.levels:
        mov r12d, 0xb           ; processors of a core, of a package
        call last_leaf
        jb .amd
        xor r15d, r15d
.level: mov eax, 0xb
        mov ecx, r15d
        cpuid
        test edx, edx           ; x2APIC id
        jnz refused
        test eax, 31            ; its bits for this level
        jnz refused
        mov eax, ebx
        share
        inc r15d
        cmp r15d, 2
        jb .level

.amd:   mov r12d, 0x80000001    ; AMD's
        mov eax, r12d
        cpuid
        mov r13d, ecx
        bt r13d, 1              ; CMP_LEGACY
        jc refused
        mov r12d, 0x80000008
        call last_leaf
        jb .done
        mov eax, r12d
        cpuid
        movzx eax, cl
        inc eax
        share
        bt r13d, 22             ; TOPOEXT
        jnc .done
        mov r12d, 0x8000001e
        call last_leaf
        jb refused
        mov eax, r12d
        cpuid
        mov r13d, ecx
        movzx eax, bh           ; threads of a core
        inc eax
        share
        mov eax, r13d
        shr eax, 8
        and eax, 7              ; nodes
        inc eax
        share
.done:  print token
        finish 0

last_leaf:                      ; below, if there is no leaf R12D
        mov eax, r12d
        and eax, 0x80000000
        cpuid
        cmp eax, r12d
        ret
refused:
        mov ebx, r12d
        call print_hex
        finish 1
token:  db "topology: OK", 10, 0
        library
        interrupt_table
