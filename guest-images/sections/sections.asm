; Multiboot 2, an ELF file that wants its section headers: prints the name and the content of each section that no segment loads.
%include "common32.inc"
%define LOAD 0x200000
        org LOAD
MAGIC   equ 0xe85250d6
elf:    db 0x7f, "ELF", 1, 1, 1
        times 9 db 0
        dw 2, 3                 ; executable, 386
        dd 1, start, program - elf, headers - elf, 0
        dw 52, 32, 1, 40, 5, 4  ; sizes and counts; the names are section 4
program: dd 1, 0, LOAD, LOAD, loaded - elf, loaded - elf, 7, 4096
        align 8
header: dd MAGIC, 0, header_end - header, -(MAGIC + header_end - header)
        dw 1, 0                 ; information that must be there: ELF sections, the memory map
        dd 16, 9, 6
        dw 0, 0
        dd 8
header_end:

start:  mov esp, STACK
        cmp eax, 0x36d76289
        jne wrong
        lea edi, [ebx + 8]
tag:    mov eax, [edi]
        test eax, eax
        jz wrong                ; no sections
        cmp eax, 9
        je found
        mov eax, [edi + 4]
        add eax, 7
        and eax, ~7
        add edi, eax
        jmp tag
found:  cmp dword [edi + 12], 40
        jne wrong
        mov eax, [edi + 16]     ; the names
        imul eax, 40
        mov eax, [edi + 20 + eax + 12]
        mov [names], eax
        mov eax, [edi + 8]
        mov [left], eax
        lea ebp, [edi + 20]
each:   mov eax, [ebp + 4]      ; symbols or strings
        and eax, ~1
        cmp eax, 2
        jne next
        mov esi, [names]
        add esi, [ebp]
        call print_string
        say colon
        mov esi, [ebp + 12]
        cmp esi, loaded
        jb wrong
        inc esi                 ; behind the first zero
        call print_string
        say newline
next:   add ebp, 40
        dec dword [left]
        jnz each
        say token
        finish 0
wrong:  say failed
        finish 1

names:  dd 0
left:   dd 0
colon:  db ": ", 0
failed: db "wrong", 10, 0
token:  db "sections: OK", 10, 0
        library32
        align 16
loaded:                         ; the rest stays in the file
symbols: db 0, "a symbol", 0
strings: db 0, "its name", 0
section_names: db 0
text_name: db ".text", 0
symbols_name: db ".symtab", 0
strings_name: db ".strtab", 0
names_name: db ".shstrtab", 0
section_names_end:
        align 4
%define NAME(label) label - section_names
headers: times 10 dd 0
        dd NAME(text_name), 1, 6, LOAD, 0, loaded - elf, 0, 0, 16, 0
        dd NAME(symbols_name), 2, 0, 0, symbols - elf, 10, 3, 0, 4, 16
        dd NAME(strings_name), 3, 0, 0, strings - elf, 10, 0, 0, 1, 0
        dd NAME(names_name), 3, 0, 0, section_names - elf, section_names_end - section_names, 0, 0, 1, 0
