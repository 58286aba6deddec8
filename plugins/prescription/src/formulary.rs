//! The drugs that the pharmacy keeps, with the doses that it fills without asking back.

/// One drug.
#[derive(Debug)]
pub(crate) struct Drug {
    pub(crate) name: &'static str,
    pub(crate) form: &'static str,
    pub(crate) strengths_mg: &'static [f64],
    pub(crate) daily_mg_max: f64,
    pub(crate) controlled: bool,
    pub(crate) cold_chain: bool,
    /// Of one piece with its share of the packing.
    pub(crate) piece_g: u32,
}

/// By its generic name.
pub(crate) fn find(name: &str) -> Option<&'static Drug> {
    FORMULARY.iter().find(|drug| drug.name == name)
}

macro_rules! formulary {
    ($($name:literal $form:literal [$($strength:literal),*] max $max:literal, $piece_g:literal g
        $(, $flag:ident)*;)*) => {
        static FORMULARY: &[Drug] = &[$(
            #[allow(unused_mut, reason = "only some have flags")]
            {
                let mut drug = Drug {
                    name: $name,
                    form: $form,
                    strengths_mg: &[$($strength),*],
                    daily_mg_max: $max,
                    controlled: false,
                    cold_chain: false,
                    piece_g: $piece_g,
                };
                $(drug.$flag = true;)*
                drug
            },
        )*];
    };
}

formulary! {
    "amlodipine" "tablet" [2.5, 5.0, 10.0] max 10.0, 1 g;
    "amoxicillin" "capsule" [250.0, 500.0] max 3000.0, 1 g;
    "atorvastatin" "tablet" [10.0, 20.0, 40.0, 80.0] max 80.0, 1 g;
    "azithromycin" "tablet" [250.0, 500.0] max 500.0, 1 g;
    "cetirizine" "tablet" [10.0] max 10.0, 1 g;
    "doxycycline" "capsule" [100.0] max 200.0, 1 g;
    "gabapentin" "capsule" [100.0, 300.0, 400.0] max 3600.0, 1 g;
    "insulin-glargine" "pen" [10.9] max 10.9, 45 g, cold_chain;
    "levothyroxine" "tablet" [0.025, 0.05, 0.1] max 0.2, 1 g;
    "lisinopril" "tablet" [5.0, 10.0, 20.0] max 80.0, 1 g;
    "losartan" "tablet" [25.0, 50.0, 100.0] max 100.0, 1 g;
    "metformin" "tablet" [500.0, 850.0, 1000.0] max 2550.0, 2 g;
    "metoprolol" "tablet" [25.0, 50.0, 100.0] max 400.0, 1 g;
    "montelukast" "tablet" [10.0] max 10.0, 1 g;
    "omeprazole" "capsule" [20.0, 40.0] max 40.0, 1 g;
    "oxycodone" "tablet" [5.0, 10.0] max 40.0, 1 g, controlled;
    "salbutamol" "inhaler" [0.1] max 0.8, 60 g;
    "semaglutide" "pen" [0.25, 0.5, 1.0] max 1.0, 40 g, cold_chain;
    "sertraline" "tablet" [25.0, 50.0, 100.0] max 200.0, 1 g;
    "zolpidem" "tablet" [5.0, 10.0] max 10.0, 1 g, controlled;
}
