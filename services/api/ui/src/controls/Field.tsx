import { Check, ChevronDown, ChevronUp } from "lucide-react";
import type { ReactNode } from "react";
import {
  Button,
  FieldError,
  Group,
  Input,
  Label,
  ListBox,
  ListBoxItem,
  NumberField as AriaNumberField,
  type NumberFieldProps as AriaNumberFieldProps,
  Popover,
  Select as AriaSelect,
  type SelectProps as AriaSelectProps,
  SelectValue,
  Switch as AriaSwitch,
  type SwitchProps as AriaSwitchProps,
  Text,
  TextArea,
  TextField as AriaTextField,
  type TextFieldProps as AriaTextFieldProps,
} from "react-aria-components";

interface Described {
  label: string;
  description?: ReactNode;
  /** What is wrong with the value; it is shown at the field, and read out with it. */
  error?: string;
}

const labelClass = "text-ink text-[13px] font-medium";
const descriptionClass = "text-soft text-xs text-pretty";
const errorClass = "text-bad text-xs";
export const inputClass =
  "bg-surface border-edge text-ink placeholder:text-soft w-full rounded-lg border px-3 py-2 outline-offset-0 invalid:border-bad data-invalid:border-bad disabled:opacity-60 focus:outline-2 focus:outline-accent";

function Around({ label, description, error, children }: Described & { children: ReactNode }) {
  return (
    <>
      <Label className={labelClass}>{label}</Label>
      {children}
      {description !== undefined && (
        <Text slot="description" className={descriptionClass}>
          {description}
        </Text>
      )}
      <FieldError className={errorClass}>{error}</FieldError>
    </>
  );
}

const column = "flex flex-col gap-1.5";

type TextFieldProps = Omit<AriaTextFieldProps, "className" | "children" | "isInvalid"> & Described & { placeholder?: string; lines?: number; mono?: boolean };

export function TextField({ label, description, error, placeholder, lines, mono, ...props }: TextFieldProps) {
  const look = mono ? `${inputClass} font-mono text-[13px]` : inputClass;
  return (
    <AriaTextField {...props} isInvalid={error !== undefined} validationBehavior="aria" className={column}>
      <Around label={label} description={description} error={error}>
        {lines === undefined ? <Input placeholder={placeholder} className={look} /> : <TextArea rows={lines} placeholder={placeholder} className={`${look} resize-y`} />}
      </Around>
    </AriaTextField>
  );
}

/** The value is NaN while the field is empty. */
export function NumberField({ label, description, error, ...props }: Omit<AriaNumberFieldProps, "className" | "children" | "isInvalid"> & Described) {
  return (
    <AriaNumberField {...props} isInvalid={error !== undefined} validationBehavior="aria" className={column}>
      <Around label={label} description={description} error={error}>
        <Group className="border-edge data-invalid:border-bad focus-within:outline-accent bg-surface flex rounded-lg border focus-within:outline-2">
          <Input className="text-ink w-full min-w-0 rounded-lg bg-transparent px-3 py-2 outline-none" />
          <div className="border-line text-soft flex flex-col border-l">
            <Button slot="increment" className="hover:bg-hover flex flex-1 cursor-pointer items-center rounded-tr-lg px-1.5 disabled:opacity-40">
              <ChevronUp size={12} aria-hidden />
            </Button>
            <Button slot="decrement" className="hover:bg-hover flex flex-1 cursor-pointer items-center rounded-br-lg px-1.5 disabled:opacity-40">
              <ChevronDown size={12} aria-hidden />
            </Button>
          </div>
        </Group>
      </Around>
    </AriaNumberField>
  );
}

export interface Choice {
  id: string;
  name: string;
  detail?: string;
}

type SelectProps = Omit<AriaSelectProps<Choice>, "className" | "children" | "isInvalid" | "items" | "value" | "onChange"> &
  Described & { choices: Choice[]; value: string | null; onChange: (id: string) => void };

export function Select({ label, description, error, choices, value, onChange, ...props }: SelectProps) {
  return (
    <AriaSelect {...props} value={value} onChange={(key) => key !== null && onChange(String(key))} isInvalid={error !== undefined} validationBehavior="aria" className={column}>
      <Around label={label} description={description} error={error}>
        <Button className={`${inputClass} flex cursor-pointer items-center justify-between gap-2 text-left`}>
          <SelectValue className="truncate data-placeholder:text-soft [&_[slot=description]]:hidden [&_svg]:hidden" />
          <ChevronDown size={14} aria-hidden className="text-soft shrink-0" />
        </Button>
      </Around>
      <Popover className="bg-surface border-line min-w-(--trigger-width) max-w-96 overflow-auto rounded-lg border p-1 shadow-lg">
        <ListBox items={choices} className="outline-none">
          {(choice) => (
            <ListBoxItem
              textValue={choice.name}
              className="data-focused:bg-hover flex cursor-pointer items-start gap-2 rounded-md px-2.5 py-1.5 outline-none"
            >
              {({ isSelected }) => (
                <>
                  <Check size={14} aria-hidden className={`text-accent mt-0.5 shrink-0 ${isSelected ? "" : "invisible"}`} />
                  <div>
                    <Text slot="label">{choice.name}</Text>
                    {choice.detail !== undefined && (
                      <Text slot="description" className="text-soft block text-xs">
                        {choice.detail}
                      </Text>
                    )}
                  </div>
                </>
              )}
            </ListBoxItem>
          )}
        </ListBox>
      </Popover>
    </AriaSelect>
  );
}

export function Switch({ children, ...props }: Omit<AriaSwitchProps, "className" | "children"> & { children?: ReactNode }) {
  return (
    <AriaSwitch {...props} className="group inline-flex cursor-pointer items-center gap-2.5 data-disabled:cursor-not-allowed data-disabled:opacity-50">
      <span className="bg-edge group-data-selected:bg-solid group-data-focus-visible:outline-accent inline-flex h-5 w-9 shrink-0 rounded-full p-0.5 outline-offset-2 transition-colors group-data-focus-visible:outline-2">
        <span className="size-4 rounded-full bg-white shadow-sm transition-transform group-data-selected:translate-x-4" />
      </span>
      {children}
    </AriaSwitch>
  );
}
