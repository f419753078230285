/*
 * Chat templates of weft's own, for models that carry none or one that cannot be run: `--template
 * NAME`. Each is the published format of a family in the fewest words: system, user and assistant,
 * no tools. Where a family knows no system role its text goes before the first question.
 */
#include "coordinator/template.h"

#include <string.h>

/* Sets `system` and leaves what follows it in `messages`. */
#define SPLIT_SYSTEM                                                                         \
    "{%- set system = '' -%}"                                                                \
    "{%- if messages and messages[0]['role'] == 'system' -%}"                                \
    "{%- set system = messages[0]['content'] + '\\n\\n' -%}"                                 \
    "{%- set messages = messages[1:] -%}"                                                    \
    "{%- if not messages or messages[0]['role'] != 'user' -%}"                               \
    "{{ raise_exception('the system prompt goes before a question, and none follows it') }}" \
    "{%- endif -%}"                                                                          \
    "{%- endif -%}"

static const struct {
    const char *name, *source;
} builtin[] = {
    {"chatml", "{%- for m in messages -%}"
               "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
               "{%- endfor -%}"
               "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"},
    {"llama3", "{{- bos_token -}}"
               "{%- for m in messages -%}"
               "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
               "{{- m['content'] | trim + '<|eot_id|>' -}}"
               "{%- endfor -%}"
               "{%- if add_generation_prompt -%}"
               "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
               "{%- endif -%}"},
    {"mistral", SPLIT_SYSTEM
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{%- if m['role'] == 'user' -%}"
     "{{ '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
     "{%- elif m['role'] == 'assistant' -%}{{ ' ' + m['content'] + eos_token }}"
     "{%- else -%}{{ raise_exception('only user and assistant may follow') }}{%- endif -%}"
     "{%- endfor -%}"},
    {"phi3", "{%- for m in messages -%}"
             "{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}"
             "{%- endfor -%}"
             "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"},
    {"gemma", SPLIT_SYSTEM
     "{{- bos_token -}}"
     "{%- for m in messages -%}"
     "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
     "{{- (system if loop.first else '') + m['content'] | trim + '<end_of_turn>\\n' -}}"
     "{%- endfor -%}"
     "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"},
    {"deepseek", "{{- bos_token -}}"
                 "{%- for m in messages -%}"
                 "{%- if m['role'] == 'user' -%}{{ '<｜User｜>' + m['content'] }}"
                 "{%- elif m['role'] == 'assistant' -%}"
                 "{{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}"
                 "{%- else -%}{{ m['content'] }}{%- endif -%}"
                 "{%- endfor -%}"
                 "{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}"},
    {"zephyr", "{%- for m in messages -%}"
               "{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}"
               "{%- endfor -%}"
               "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"},
};

const char *const weft_template_names[] = {"chatml", "llama3",   "mistral", "phi3",
                                           "gemma",  "deepseek", "zephyr",  NULL};

const char *weft_template_builtin(const char *name)
{
    for (size_t i = 0; i < sizeof builtin / sizeof builtin[0]; i++)
        if (strcmp(builtin[i].name, name) == 0)
            return builtin[i].source;
    return NULL;
}
